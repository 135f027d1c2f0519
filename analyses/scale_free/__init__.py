"""Weights whose size the loss does not feel: which they are, and what decay and the rate's schedule do to them."""

from analyses.making import codes
from analyses.scale_free.figure import SIZE, caption, plot, show
from analyses.scale_free.findings import CHECKS, judge
from analyses.scale_free.numbers import compute
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="scale_free",
    title="Weights without a scale",
    question="Which weights have a size that the loss does not feel, and what does weight decay do to them?",
    reading=(
        "A norm right behind a weight takes its size out: the gradient is at right angles to it, each step makes it "
        "longer, and only decay makes it shorter. Decay then sets no size but how far a step turns the weight. Left: "
        "that turn, the median over such weights, and dashed what decay and rate let it come to. Right: their "
        "gradient and their size, over those of the first recorded step; the dotted line is the gradient that the "
        "size alone would make, one over it."
    ),
    caption=caption,
    needs={"params": ("step", "name", "numel", "grad_norm", "weight_norm", "grad_weight")},
    uses={"params": ("update_norm", "update_ratio")},
    compute=compute,
    plot=plot,
    show=show,
    judge=judge,
    size=SIZE,
    codes=codes(*CHECKS),
    reference="Ba et al. 2016 (1607.06450), Table 1; Kosson et al. 2024 (2305.17212); Defazio 2025 (2506.02285)",
)
