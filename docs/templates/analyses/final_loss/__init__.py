"""How far the loss has fallen."""

from analyses.final_loss.figure import plot
from analyses.final_loss.findings import CHECK, judge
from analyses.final_loss.numbers import compute
from analyses.making import codes
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="final_loss",
    title="How far the loss fell",
    question="Does the loss fall in training?",
    reading=(
        "The loss of each recorded step, a line a run, in the task's unit. Judged is the mean of the last fifth of the "
        "steps as a share of that of the first fifth."
    ),
    needs={"steps": ("step", "loss")},
    compute=compute,
    plot=plot,
    judge=judge,
    kinds=("training",),
    codes=codes(CHECK),
)
