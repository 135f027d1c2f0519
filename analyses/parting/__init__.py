"""Where do two runs part, and does it matter: what both recorded, paired step by step and place by place."""

from analyses.parting.figure import READING, SIZE, caption, plot
from analyses.parting.findings import CODES, judge
from analyses.parting.numbers import compute
from analyses.parting.show import show
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="parting",
    title="Where do two runs part?",
    question="Where do two runs, or two implementations of one model, part, and does it matter?",
    reading=READING,
    needs={"steps": ("step", "loss")},
    uses={
        "norms": ("step", "site", "call", "rank", "rescaling", "inv_sigma", "grad_output_norm", "grad_input_norm"),
        "activations": ("step", "site", "call", "rank", "tensor", "rms"),
        "params": ("step", "name", "numel", "weight_norm", "grad_norm", "update_norm"),
    },
    compute=compute,
    plot=plot,
    show=show,
    judge=judge,
    kinds=("init", "training", "attached", "reference"),
    size=SIZE,
    codes=CODES,
    caption=caption,
    optional=True,
)
