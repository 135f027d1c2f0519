"""Is this gradient norm normal: held against a reference run, the model's own initialization, and its other blocks."""

from analyses.expected.findings import CODES, judge
from analyses.expected.numbers import compute, show
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="expected",
    title="Is this gradient norm normal?",
    question="Is the gradient norm what one should expect of this model?",
    reading=(
        "What was measured, as a geometric mean over the end of training, beside what one should expect and where that "
        "comes from: a reference run where one was named (--reference RUN), the same model at its own initialization "
        "(measured over seeds where such a recording stands beside it, else its own first step), and for each block "
        "the median of the others. A gradient norm by itself says nothing: it depends on the model's size, its loss "
        "and its batch."
    ),
    needs={"params": ("step", "name", "grad_norm"), "steps": ("step", "grad_norm")},
    uses={"params": ("numel",)},
    compute=compute,
    show=show,
    judge=judge,
    kinds=("init", "training", "attached", "reference"),
    codes=CODES,
    optional=True,
)
