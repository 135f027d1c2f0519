"""What the lens saw of each recording, what it missed, and which gradients the numbers are of."""

from analyses.audit.findings import CODES, judge
from analyses.audit.numbers import compute, show
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="audit",
    title="Audit: what was seen, and what was not",
    question="Did the lens see every normalization, and which gradients are the numbers of?",
    reading=(
        "Each lens checks itself while it records. Recordings that say the same stand together. A norm that "
        "was found but never fired, or that ran as a function, is missing from every other page of this report; what "
        "was missed is therefore a finding, below, with what to do."
    ),
    needs={"sites": ("site", "kind", "order")},  # its tables of norms and activations may well be empty
    uses={
        "norms": ("step", "site", "rank", "nonfinite"),
        "activations": ("step", "site", "rank", "tensor", "absmax", "numel"),
    },
    compute=compute,
    show=show,
    judge=judge,
    codes=CODES,
)
