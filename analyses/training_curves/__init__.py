"""What happened in training: the loss, the size of the gradient, and its balance over depth, step by step."""

from analyses.training_curves.figure import READING, SIZE, caption, plot
from analyses.training_curves.findings import CODES, judge
from analyses.training_curves.numbers import compute
from analyses.training_curves.strip import strip
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="training_curves",
    title="Training",
    question="Did each variant learn, did it need the warm-up, and what happened to its gradients meanwhile?",
    reading=" ".join(READING.values()),
    caption=caption,
    needs={
        "sites": ("site", "kind"),
        "steps": ("step", "loss", "grad_norm"),
        "params": ("step", "name", "grad_norm", "nonfinite"),
    },
    compute=compute,
    plot=plot,
    judge=judge,
    kinds=("training", "attached"),
    size=SIZE,
    strip=strip,
    codes=CODES,
    reference="Xiong et al. 2020 (2002.04745), Figs. 2 and 3",
)
