"""How the model is wired: skips, signs, norms that are doubled, missing, misplaced or not at work, and its stream."""

from analyses.architecture.findings import CODES, judge
from analyses.architecture.numbers import compute
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="architecture",
    title="Architecture",
    question="Is the model wired as it was meant to be?",
    reading=(
        "What the graph of the first recorded pass shows of residual additions and norms, held against the model's "
        "other blocks and against what its arrangement needs; how the norms worked in the recorded steps; and how the"
        " stream grows from block to block before anything is learned. There is nothing to draw: each answer is a "
        "finding, below."
    ),
    needs={"sites": ("site", "kind", "placement", "block", "order")},
    compute=compute,
    judge=judge,
    codes=CODES,
)
