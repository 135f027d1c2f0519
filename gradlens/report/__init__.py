"""What analyses say, for a reader: a typeset PDF, the same as data, and text for the terminal."""

import sys
from types import ModuleType

from gradlens.report.cover import Cover
from gradlens.report.folder import write_folder
from gradlens.report.pdf import report
from gradlens.report.text import findings_text, summary_text

__all__ = ["Cover", "findings_text", "report", "summary_text", "write_folder"]


class _CallableModule(ModuleType):
    """Lets ``gradlens.report(...)`` write a report also after this package was imported by its full name."""

    __call__ = staticmethod(report)


sys.modules[__name__].__class__ = _CallableModule
