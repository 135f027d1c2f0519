"""What broke first: the first value that is no number, overflow, blocks that begin to amplify, and blocks that die."""

from analyses.onset.figure import READING, SIZE, caption, plot
from analyses.onset.findings import CODES, judge
from analyses.onset.numbers import compute
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="onset",
    title="What broke first",
    question="Where and when did something break, and in which pass?",
    reading=" ".join(READING.values()),
    caption=caption,
    needs={
        "sites": ("site", "kind", "order"),
        "params": ("step", "name", "grad_norm"),
        "activations": ("step", "site", "tensor", "rms"),
        "steps": ("step",),
    },
    uses={
        "norms": ("step", "nonfinite"),
        "params": ("numel", "nonfinite"),
        "activations": ("absmax", "numel"),
    },
    compute=compute,
    plot=plot,
    judge=judge,
    size=SIZE,
    kinds=("training", "attached"),
    codes=CODES,
)
