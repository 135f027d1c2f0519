"""What attention looks at: whether it saturates, whether it looks at nothing, and the first token's gradient."""

from analyses.attention.figure import READING, SIZE, caption, plot
from analyses.attention.findings import CODES, judge
from analyses.attention.numbers import compute
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="attention",
    title="Attention",
    question="Does attention look at something, or at one thing only?",
    reading=" ".join(READING.values()),
    caption=caption,
    needs={
        "attention": ("step", "site", "head", "relative_entropy", "first_share", "logit_max"),
        "steps": ("step",),
    },
    uses={
        "attention": ("sampled", "queries"),
        "tokens": ("step", "site", "grad_output_ratio", "inv_sigma_ratio"),
    },
    compute=compute,
    plot=plot,
    judge=judge,
    kinds=("training", "attached"),
    size=SIZE,
    codes=CODES,
)
