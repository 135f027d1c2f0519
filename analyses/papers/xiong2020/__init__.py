"""Xiong et al. 2020, On Layer Normalization in the Transformer Architecture (2002.04745): what its study shows.

The study itself, what is measured at initialization and what is trained how, is ``gradlens.lab.studies.xiong2020``.
"""

from analyses.papers.xiong2020 import (
    amplification_by_depth,
    arrangements_by_depth,
    claims,
    concentration,
    gradients_by_block,
    last_block_by_depth,
    learning_rate_limits,
    sharpness_by_depth,
    stream_growth,
    warm_up,
)
from gradlens.analysis import Analysis

ANALYSES: tuple[Analysis, ...] = (
    warm_up.ANALYSIS,
    claims.ANALYSIS,
    gradients_by_block.ANALYSIS,
    last_block_by_depth.ANALYSIS,
    stream_growth.ANALYSIS,
    concentration.ANALYSIS,
    arrangements_by_depth.ANALYSIS,
    amplification_by_depth.ANALYSIS,
    sharpness_by_depth.ANALYSIS,
    learning_rate_limits.ANALYSIS,
)

__all__ = ["ANALYSES"]
