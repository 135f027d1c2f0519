"""Xu et al. 2019, Understanding and Improving Layer Normalization (1911.07013): what the runs of its study show.

The study itself, which norm is trained how on which task, is ``gradlens.lab.studies.xu2019``.
"""

from analyses.papers.xu2019 import claims, curves, gradients, phi, scores, shares
from gradlens.analysis import Analysis

ANALYSES: tuple[Analysis, ...] = (
    scores.ANALYSIS,
    claims.ANALYSIS,
    curves.ANALYSIS,
    gradients.BY_DEPTH,
    gradients.OVER_TRAINING,
    shares.ANALYSIS,
    phi.ANALYSIS,
)

__all__ = ["ANALYSES"]
