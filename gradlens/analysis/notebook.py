"""What a notebook shows: of findings their causes, what follows from each, and what to try; figures as pictures."""

import io
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape

import matplotlib
from matplotlib.figure import Figure

from gradlens.analysis.causes import Cause
from gradlens.analysis.figures import STYLE
from gradlens.analysis.finding import SEVERITY, Finding
from gradlens.text import printable

#: Colours that can be read on white and on black.
_COLOURS = {"fail": "#d0312d", "warn": "#b7791f", "pass": "#2f855a"}


def tally(findings: Sequence[Finding]) -> str:
    """Count findings by status, worst first, as in "1 fail, 3 warn, 20 pass"."""
    counts = Counter(finding.status for finding in findings)
    said = [f"{counts[status]} {status}" for status in reversed(SEVERITY) if counts[status]]
    return ", ".join(said) or "no findings"


def html(causes: Sequence[Cause], findings: Sequence[Finding]) -> str:
    """Return a table of causes with their symptoms below them, and how many checks say what.

    Args:
        causes: what is flagged.
        findings: all.
    """
    rows = "".join(row for cause in causes for row in _rows(cause))
    return f"<div><table>{rows}</table><p>{escape(tally(findings))}</p></div>"


def finding_html(finding: Finding) -> str:
    """Return one finding as a table."""
    return f"<table>{_row(finding)}{_note(finding)}</table>"


def show(figures: Mapping[str, Figure], verdict: str) -> None:
    """Display a verdict and figures in a notebook; elsewhere print how to have them.

    Args:
        figures: by title.
        verdict: HTML.
    """
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive else None
    if getattr(shell, "kernel", None) is None:
        print(
            "show() shows in a notebook. Here gradlens.report(comparison, 'report.pdf') writes all of it, and "
            "comparison.figures[NAME].savefig('a.png') one figure."
        )
        return
    from IPython.display import HTML, display

    parts = [f"<h4>{escape(title)}</h4>{_picture(title, figure)}" for title, figure in figures.items()]
    display(HTML(verdict + "".join(parts)))


def _picture(title: str, figure: Figure) -> str:
    out = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="png", dpi=120)
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{b64encode(out.getvalue()).decode()}">'


def _rows(cause: Cause) -> Iterator[str]:
    yield _row(cause.finding)
    yield _note(cause.finding)
    for symptom in cause.symptoms:
        yield _row(symptom, "follows: ")


def _row(finding: Finding, before: str = "") -> str:
    colour = _COLOURS.get(finding.status, "inherit")
    status = f'<td style="color:{colour};text-align:left"><b>{finding.status}</b></td>'
    claim = escape(printable(before + finding.claim))
    return f'<tr>{status}<td>{escape(finding.code)}</td><td style="text-align:left">{claim}</td></tr>'


def _note(finding: Finding) -> str:
    if not finding.remedies or finding.status not in ("fail", "warn"):
        return ""
    return f'<tr><td></td><td></td><td style="text-align:left"><i>Try: {escape(finding.remedies[0])}</i></td></tr>'
