"""Ba et al. 2016, Layer Normalization (1607.06450): what its study shows.

The study itself is ``gradlens.lab.studies.ba2016``; what of it may be asked of any model, ``analyses.scale_free``.
"""

from analyses.papers.ba2016 import claims, digits, invariance, recurrent
from gradlens.analysis import Analysis

ANALYSES: tuple[Analysis, ...] = (invariance.ANALYSIS, claims.ANALYSIS, digits.ANALYSIS, recurrent.ANALYSIS)

__all__ = ["ANALYSES"]
