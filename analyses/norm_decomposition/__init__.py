"""What each norm does to the gradient: the shares it re-centers away, re-scales away, and lets through."""

from analyses.norm_decomposition.figure import READING, SIZE, caption, plot
from analyses.norm_decomposition.findings import CODES, judge
from analyses.norm_decomposition.numbers import compute
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="norm_decomposition",
    title="What the norms do to the gradient",
    question="How much of the gradient does each norm re-center away, re-scale away, and let through?",
    reading=" ".join(READING.values()),
    caption=caption,
    needs={
        "sites": ("site", "order", "eps"),
        "norms": ("step", "site", "width", "recentering", "rescaling", "kept", "inv_sigma"),
    },
    uses={"norms": ("vectors", "grad_output_norm", "grad_input_norm")},
    compute=compute,
    plot=plot,
    judge=judge,
    size=SIZE,
    codes=CODES,
    reference="Xu et al. 2019 (1911.07013), Theorem 1",
)
