"""What reaches the parameters: who gets no gradient, who holds it all, what clipping leaves, what a step moves."""

from analyses.parameters.figure import READING, SIZE, caption, plot
from analyses.parameters.findings import CODES, judge
from analyses.parameters.numbers import compute
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="parameters",
    title="Parameters",
    question="What reaches the parameters?",
    reading=" ".join(READING.values()),
    caption=caption,
    needs={
        "params": ("step", "name", "numel", "grad_norm"),
        "steps": ("step",),
    },
    uses={
        "norms": ("step", "site", "grad_output_norm"),
        "params": (
            "nonfinite",
            "weight_norm",
            "grad_weight",
            "update_norm",
            "update_ratio",
            "update_ratio_error",
            "active",
            "still_share",
            "rows",
            "idle_rows",
            "weight_least",
            "weight_most",
        ),
    },
    compute=compute,
    plot=plot,
    judge=judge,
    kinds=("training", "attached"),
    size=SIZE,
    codes=CODES,
)
