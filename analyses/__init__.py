"""The questions asked of recordings, a folder each, in reading order.

``gradlens`` finds them through the entry-point group ``gradlens.analyses``; another package adds its own
tuple of ``gradlens.analysis.Analysis`` in the same way. A new question is one folder and its line here.
"""

from analyses import (
    architecture,
    attention,
    audit,
    depth_profile,
    expected,
    held_out,
    norm_decomposition,
    objective,
    onset,
    parameters,
    parting,
    scale_free,
    training_curves,
)
from gradlens.analysis import Analysis

ANALYSES: tuple[Analysis, ...] = (
    depth_profile.ANALYSIS,
    norm_decomposition.ANALYSIS,
    onset.ANALYSIS,
    training_curves.ANALYSIS,
    expected.ANALYSIS,
    parting.ANALYSIS,
    objective.ANALYSIS,
    attention.ANALYSIS,
    parameters.ANALYSIS,
    scale_free.ANALYSIS,
    architecture.ANALYSIS,
    held_out.ANALYSIS,
    audit.ANALYSIS,
)

__all__ = ["ANALYSES"]
