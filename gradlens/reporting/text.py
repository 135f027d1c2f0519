"""The report for a terminal: plain text in columns, readable without colour and in a log file."""

import textwrap
from typing import Any

import pandas as pd

from gradlens.analysis.causes import Cause
from gradlens.analysis.comparison import Comparison
from gradlens.analysis.finding import SEVERITY, Finding, Status
from gradlens.reporting import story
from gradlens.reporting.cover import Cover
from gradlens.reporting.document import checks, summary_cells
from gradlens.reporting.numbers import interval, number
from gradlens.reporting.words import FLAGGED, STATUS
from gradlens.text import columns

_QUIET: tuple[Status, ...] = ("pass", "not applicable")
#: Below a finding's first line, its text stands under its claim.
_INDENT = " " * 23


def summary_text(comparison: Comparison, cover: Cover | None = None) -> str:
    """Return the summary as a table: one line a recording, or the cover's own, under two lines of heads.

    Empty where the cover has no table.
    """
    heads, rows = cover.cells if cover else summary_cells(comparison.summary)
    if not heads:
        return ""
    cells = [list(column) for column in zip(*heads, strict=True)] + rows
    right = [i for i, head in enumerate(heads) if i > 0 and head[0] not in ("measured", "status")]
    lines = columns(cells, right=right).split("\n")
    rule = "─" * max(len(line) for line in lines)
    return "\n".join([*lines[:2], rule, *lines[2:]])


def verdict_text(comparison: Comparison, *, width: int = 100) -> str:
    """Return what is wrong as a colleague would tell it, a paragraph, or that nothing is; empty where nobody knows.

    Args:
        comparison: whose findings.
        width: columns of the terminal.
    """
    return textwrap.fill(" ".join(story.diagnosis(comparison)), max(width, 60))


def findings_text(comparison: Comparison, *, width: int = 100, verbose: bool = False, short: bool = False) -> str:
    """Return the findings: each cause in full with what to try and what follows from it, the rest a line a check.

    Args:
        comparison: whose findings.
        width: columns of the terminal.
        verbose: print every finding in full, with causes, the source of the expectation, and the reference.
        short: of checks that ask for nothing print the codes alone.
    """
    if not comparison.findings:
        return story.verdict(comparison)[-1]
    lines = [line for cause in comparison.causes for line in _cause_lines(cause, width, verbose)]
    found = sorted(comparison.findings, key=lambda f: -SEVERITY.index(f.status))
    open_ones = [f for f in found if f.status == "inconclusive" or (verbose and f.status not in FLAGGED)]
    lines += [line for finding in open_ones for line in _finding_lines(finding, width, verbose)]
    quiet = [] if verbose else [c for s in comparison.sections if not s.silent for c in checks(s)]
    lines += (_codes if short else _titles)(quiet, width)
    for section in comparison.sections if verbose else ():
        lines += [line for caption, table in section.shown.items() for line in _table_lines(caption, table, width)]
    return "\n".join(lines)


def _titles(quiet: list[dict[str, Any]], width: int) -> list[str]:
    """Return a line a check that passed, or does not apply, with of how many findings that is so."""
    return [
        _wrapped(
            f"{check['title']} ({found['count']} of {len(check['findings'])})", _head(status, check["code"]), width
        )
        for check in quiet
        for status in _QUIET
        if (found := check["folded"].get(status))
    ]


def _codes(quiet: list[dict[str, Any]], width: int) -> list[str]:
    """Return what passed, and what does not apply, by its codes."""
    by_status = {status: [check["code"] for check in quiet if status in check["folded"]] for status in _QUIET}
    return [
        textwrap.fill(f"{' '.join(STATUS[status])}: {', '.join(codes)}", max(width, 60), subsequent_indent="  ")
        for status, codes in by_status.items()
        if codes
    ]


def _cause_lines(cause: Cause, width: int, verbose: bool) -> list[str]:
    """Return a cause, and below it what follows from it: each symptom in full where all is, else its claim."""
    lines = _finding_lines(cause.finding, width, verbose)
    for finding in cause.symptoms:
        own = _finding_lines(finding, width, True) if verbose else []
        mark, word = STATUS[finding.status]
        said = f"{mark} {word} {finding.code} {story.headline(finding).removeprefix(f'{finding.subject}: ')}"
        lines += own or [_wrapped(said, f"{_INDENT}follows: ", width)]
    return lines


def _table_lines(caption: str, table: pd.DataFrame, width: int) -> list[str]:
    """Return a table that is read, not drawn: its caption, then a line a row, long cells below one another."""
    cells = [[str(column) for column in table.columns]]
    cells += [[number(cell) for cell in row] for row in table.itertuples(index=False)]
    at_least = max(width, 60)
    return ["", *textwrap.wrap(caption, at_least), columns(cells, width=at_least)]


def _finding_lines(finding: Finding, width: int, verbose: bool) -> list[str]:
    """Return one finding's lines: the claim, then what belongs to it."""
    notes = [("try", text) for text in finding.remedies] if finding.status in FLAGGED else []
    if verbose:
        numbers = (number(finding.value), interval(finding.low, finding.high), finding.unit)
        value = "" if finding.value is None else " ".join(part for part in numbers if part)
        expected = "" if finding.expected is None else f"{number(finding.expected)}, {finding.expected_from}"
        rest = (
            ("measured", value),
            ("expected", expected),
            ("limit", finding.threshold),
            ("see", finding.reference),
        )
        notes = [("cause", text) for text in finding.causes] + notes + [note for note in rest if note[1]]
    claim = _wrapped(finding.claim, _head(finding.status, finding.code), width)
    return [claim, *(_wrapped(text, f"{_INDENT}{kind}: ", width) for kind, text in notes)]


def _head(status: Status, code: str) -> str:
    mark, word = STATUS[status]
    return f"{mark} {word:<14} {code:<5} "


def _wrapped(text: str, first: str, width: int) -> str:
    return textwrap.fill(text, max(width, 60), initial_indent=first, subsequent_indent=_INDENT + "  ")
