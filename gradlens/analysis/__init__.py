"""The contract between the instrument and the questions asked of its recordings."""

from gradlens.analysis.causes import Cause, causes
from gradlens.analysis.comparison import Comparison, compare, plot
from gradlens.analysis.contract import Analysis
from gradlens.analysis.finding import SEVERITY, Finding, Pass, Status, worst

__all__ = [
    "SEVERITY",
    "Analysis",
    "Cause",
    "Comparison",
    "Finding",
    "Pass",
    "Status",
    "causes",
    "compare",
    "plot",
    "worst",
]
