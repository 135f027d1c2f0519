"""What analyses say, for a reader: a typeset PDF, the same as data, and text for the terminal."""

import sys
from functools import wraps
from types import ModuleType
from typing import Any

from gradlens import _recordings
from gradlens.analysis.comparison import Comparison
from gradlens.report import pdf
from gradlens.report.cover import Cover
from gradlens.report.folder import write_folder
from gradlens.report.text import findings_text, summary_text

__all__ = ["Cover", "findings_text", "report", "summary_text", "write_folder"]


@wraps(pdf.report)
def report(recordings: Any, path: Any, **options: Any) -> None:
    """Write a report, once it is sure that it is one of recordings."""
    comparison = recordings if isinstance(recordings, Comparison) else _recordings(recordings, "report")
    pdf.report(comparison, path, **options)


class _CallableModule(ModuleType):
    """Lets ``gradlens.report(...)`` write a report also after this package was imported by its full name."""

    __call__ = staticmethod(report)


sys.modules[__name__].__class__ = _CallableModule
