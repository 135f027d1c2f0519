"""How the model is wired: skips, signs, norms that are doubled, missing, misplaced or not at work, and its stream."""

from analyses.architecture.findings import CODES, judge
from analyses.architecture.numbers import compute, show
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="architecture",
    title="Architecture",
    question="Is the model wired as it was meant to be?",
    reading=(
        "What the graph of the first recorded passes shows of residual additions and norms is held against the model's "
        "other blocks and against what its arrangement needs; how the norms worked, against their kind; the stream's "
        "growth from block to block before anything is learned, against the arrangement's law. The table counts what "
        "was looked at, and what is odd; the findings name it."
    ),
    needs={"sites": ("site", "kind", "placement", "block", "order")},
    uses={
        "norms": ("step", "site", "call", "width", "recentering", "rescaling", "mean_share", "inv_sigma"),
        "activations": ("step", "site", "tensor", "call", "rms", "absmax"),
        "params": ("step", "name", "numel", "rows", "weight_norm"),
    },
    compute=compute,
    show=show,
    judge=judge,
    codes=CODES,
)
