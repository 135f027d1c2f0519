"""How gradients and the stream change with depth at initialization, and what theory says."""

from analyses.depth_profile.figure import READING, caption, plot, strip
from analyses.depth_profile.findings import CODES, judge
from analyses.depth_profile.numbers import compute
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="depth_profile",
    title="Gradients and stream over depth, at initialization",
    question="How do gradients and the stream grow or shrink with depth before the first step?",
    reading=" ".join(READING.values()),
    caption=caption,
    needs={
        "sites": ("site", "kind", "block", "order"),  # not the placement: a model without norms has none
        "params": ("step", "name", "grad_norm"),
        "activations": ("step", "site", "tensor", "rms"),
    },
    compute=compute,
    plot=plot,
    judge=judge,
    kinds=("init",),
    size=(6.7, 3.85),
    strip=strip,
    strip_shows="gradient norm and stream by block, before the first step",
    codes=CODES,
    reference="Xiong et al. 2020 (2002.04745), Lemmas 1 and 2, Theorem 1, Fig. 3; Kedia et al. 2024 (2403.09635)",
)
