"""What analyses say, for a reader: a typeset PDF, the same as data, and text for the terminal."""

from gradlens.reporting.cover import Cover
from gradlens.reporting.document import causes_of
from gradlens.reporting.folder import write_folder
from gradlens.reporting.pdf import report
from gradlens.reporting.text import findings_text, summary_text, verdict_text

__all__ = ["Cover", "causes_of", "findings_text", "report", "summary_text", "verdict_text", "write_folder"]
