"""All that a report says, as one plain value: ``findings.json`` is it, and the PDF is typeset from it.

What is printed is therefore in the JSON by construction. Numbers stand twice: as they are, and as printed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlens.analysis.comparison import Comparison, Section
from gradlens.analysis.finding import SEVERITY, Finding, worst
from gradlens.analysis.summary import MEANING
from gradlens.recording import Recording
from gradlens.reporting import record, story
from gradlens.reporting.cover import Cover
from gradlens.reporting.folded import folded
from gradlens.reporting.numbers import count, interval, number
from gradlens.reporting.tables import printed
from gradlens.reporting.words import DEFINITIONS, FLAGGED, STATUS, STATUS_MEANING
from gradlens.text import printable_lines

#: Raised by one when a key of the document changes its meaning.
DOCUMENT_VERSION = 1
#: Width of the text, and the height a page leaves for a figure, in inches.
PAGE = (6.7, 8.0)
#: Letters of the heading that the top of a page has room for.
_RUNNING = 90
#: Columns of the summary as they are printed, with the unit below.
_SUMMARY_HEADS = {
    "recording": ("recording", ""),
    "measured": ("measured", ""),
    "parameters": ("weights", ""),
    "loss": ("loss", "training"),
    "valid_loss": ("loss", "held out"),
    "gradient_ratio": ("gradient", "last / first"),
    "stream_rms": ("output rms", "last block"),
    "kept": ("kept", "of gradient"),
    "seconds": ("time", "ms / step"),
    "status": ("status", ""),
}


def document(comparison: Comparison, command: str | None = None, cover: Cover | None = None) -> dict[str, Any]:
    """Gather all that a report on the comparison says.

    Args:
        comparison: recordings and findings.
        command: the command line that makes this report again.
        cover: the first page; by default the comparison's own story.

    Returns:
        Plain values, ready for JSON; a number that is missing is None.
    """
    heading = cover.heading if cover else story.heading(comparison)
    recorded = record.recorded(comparison.recordings)
    content = {
        "version": DOCUMENT_VERSION,
        "title": ": ".join(heading),
        "heading": heading,
        "running": heading[0] if len(heading[0]) <= _RUNNING else f"{heading[0][: _RUNNING - 1]}…",
        "subtitle": cover.subtitle if cover else story.subtitle(comparison),
        "verdict": cover.verdict if cover else story.verdict(comparison),
        "status": worst(comparison.findings),
        "statuses": {s: {"mark": STATUS[s][0], "word": STATUS[s][1], "meaning": STATUS_MEANING[s]} for s in STATUS},
        "findings": [_finding(f) for f in comparison.findings],
        "causes": causes_of(comparison),
        "summary": _summary(comparison.summary, cover),
        "sections": [_section(s, comparison, cover) for s in comparison.sections if not s.silent],
        "absent": [_absent(s) for s in comparison.sections if s.silent and s.findings],
        "strip": _strip(comparison, cover),
        "key": _key_figure(comparison),
        "methods": record.methods(comparison.recordings),
        "definitions": DEFINITIONS,
        "recorded": recorded,
        "recorded_groups": record.grouped(comparison.recordings, recorded),
        "settings": record.settings(comparison.recordings),
        "software": record.software(),
        "command": command,
        "recordings": [dict(r.meta) for r in comparison.recordings],
    }
    plain: dict[str, Any] = plain_values(content)
    return plain


def causes_of(comparison: Comparison) -> list[dict[str, Any]]:
    """Return what is flagged in order of cause: code, subject and claim of each cause, and the codes it explains."""
    return [
        {
            "code": cause.finding.code,
            "subject": cause.finding.subject,
            "claim": cause.finding.claim,
            "status": cause.status,
            "symptoms": [finding.code for finding in cause.symptoms],
        }
        for cause in comparison.causes
    ]


def plain_values(value: Any) -> Any:
    """Turn mappings, sequences and numpy numbers into what JSON has; NaN into None, infinity into a text."""
    if isinstance(value, Mapping):
        return {str(k): plain_values(v) for k, v in value.items()}
    if isinstance(value, str):
        return printable_lines(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic):
        return plain_values(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, int):
        return value
    if isinstance(value, Iterable):
        return [plain_values(item) for item in value]
    return str(value)


def _finding(finding: Finding) -> dict[str, Any]:
    texts = {
        "measured": "" if finding.value is None else number(finding.value),
        "interval": interval(finding.low, finding.high),
        "expected": "" if finding.expected is None else number(finding.expected),
    }
    return finding.to_dict() | {"printed": texts}


def _summary(numbers: pd.DataFrame, cover: Cover | None) -> dict[str, Any]:
    heads, cells = cover.cells if cover else summary_cells(numbers)
    return {"rows": numbers.to_dict("records"), "meaning": MEANING, "heads": heads, "printed": cells}


def summary_cells(numbers: pd.DataFrame) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Print a summary.

    Args:
        numbers: what ``gradlens.analysis.summary.summary`` returned.

    Returns:
        The heads, each of two lines, and the rows. A column is left out where no recording has a number in
        it, and where all came to a good end, or have the same number of weights.
    """
    idle = {c for c in numbers.columns if numbers[c].isna().all()}
    idle |= {"status"} if (numbers["status"] == "complete").all() else set()
    idle |= {"parameters"} if len(numbers) > 1 and numbers["parameters"].map(count).nunique() == 1 else set()
    shown = [c for c in numbers.columns if c not in idle]
    rows = [[_summary_cell(c, row[c]) for c in shown] for row in numbers.to_dict("records")]
    return [_SUMMARY_HEADS[c] for c in shown], rows


def _summary_cell(column: str, value: Any) -> str:
    if column == "parameters":
        return count(value)
    return number(value * 1e3 if column == "seconds" else value)


def _key_figure(comparison: Comparison) -> str | None:
    """Return the analysis whose figure stands on the first page if it fits: the one with most to say."""
    drawn = [s for s in comparison.sections if s.drawn]
    found = max(drawn, key=lambda s: SEVERITY.index(worst(s.findings)), default=None)
    return found.analysis.name if found else None


def _strip(comparison: Comparison, cover: Cover | None) -> str | None:
    """Describe the first page's strip to a reader who cannot see it; None where there is none."""
    told = comparison.told_first
    if cover or told is None:
        return None
    marks = [f"{c.finding.code} at step {c.finding.onset}" for c in comparison.causes if c.finding.onset is not None]
    return f"Figure: {told.analysis.strip_shows}." + (f" Marked: {', '.join(marks)}." if marks else "")


def _absent(section: Section) -> dict[str, str]:
    """Say why a question has no section."""
    codes, said = (_once(getattr(finding, of) for finding in section.findings) for of in ("code", "claim"))
    return {"title": section.analysis.title, "codes": ", ".join(codes), "why": " ".join(said)}


def _section(section: Section, comparison: Comparison, cover: Cover | None) -> dict[str, Any]:
    recordings = comparison.recordings
    analysis, table = section.analysis, section.table
    return {
        "name": analysis.name,
        "title": analysis.title,
        "question": analysis.question,
        "reading": section.reading,
        "reference": analysis.reference,
        "labels": section.labels,
        "lacking": _lacking(section, recordings),
        "status": worst(section.findings),
        "checks": [check | _standing(check["code"], comparison) for check in checks(section)],
        "drawn": section.drawn,
        "alt": _alt(section) if section.drawn else "",
        "shown": _width(*analysis.size),
        "tables": [
            {"caption": caption, "on_cover": cover is not None and rows is cover.table, **printed(rows)}
            for caption, rows in section.shown.items()
        ],
        "table": {
            "file": f"{analysis.name}.csv",
            "rows": len(table),
            "columns": [str(column) for column in table.columns],
        },
    }


def _standing(code: str, comparison: Comparison) -> dict[str, Any]:
    """Return the place of a check in the order of causes, each before its symptoms, and what it follows from."""
    chain = [(one, cause) for cause in comparison.causes for one in (cause.finding, *cause.symptoms)]
    place = next((index for index, (one, _) in enumerate(chain) if one.code == code), len(chain))
    own = [(one, cause.finding) for one, cause in chain if one.code == code]
    follows = dict.fromkeys(cause.code for one, cause in own if one is not cause)
    return {"place": place, "follows": list(follows) if all(one is not cause for one, cause in own) else []}


def _lacking(section: Section, recordings: Sequence[Recording]) -> dict[str, str]:
    """Say what recordings lack of what the section reads, those that lack the same named together."""
    same: dict[tuple[str, ...], list[str]] = {}
    for label, columns in section.lacking.items():
        same.setdefault(columns, []).append(label)
    needs = section.analysis.needs
    return {"; ".join(record.whose(labels, recordings)): _without(columns, needs) for columns, labels in same.items()}


def _without(lacking: Iterable[str], needs: Mapping[str, Sequence[str]]) -> str:
    """Name columns by their tables, and a table alone that has none of them."""
    tables: dict[str, list[str]] = {}
    for name in lacking:
        table, _, column = name.partition(".")
        tables.setdefault(table, []).append(column)
    empty = [table for table, columns in tables.items() if len(columns) == len(needs[table])]
    said = [f"the table {table}" for table in empty]
    said += [f"{', '.join(columns)} in the table {table}" for table, columns in tables.items() if table not in empty]
    return "; ".join(said)


def _width(width: float, height: float) -> float:
    """Return a figure's printed width as a share of the page's: its own size where a page can hold that."""
    text_width, most_height = PAGE
    return min(width, text_width, width * most_height / height) / text_width


def checks(section: Section) -> list[dict[str, Any]]:
    """Bring findings of one code together, worst first within it: causes and remedies are then said once."""
    by_code: dict[str, list[Finding]] = {}
    for finding in section.findings:
        by_code.setdefault(finding.code, []).append(finding)
    return [_check(section, code, members) for code, members in by_code.items()]


def _check(section: Section, code: str, members: list[Finding]) -> dict[str, Any]:
    members = sorted(members, key=lambda f: -SEVERITY.index(f.status))
    flagged = [f for f in members if f.status in FLAGGED]
    about = section.analysis.codes.get(code, "")
    return {
        "code": code,
        "title": story.first_clause(about) or story.headline(members[0]),
        "about": about,
        "status": worst(members),
        "flagged": [_finding(f) | {"headline": story.headline(f)} for f in flagged],
        "findings": [_finding(f) for f in members],
        "folded": {s: folded(same) for s in SEVERITY if (same := [f for f in members if f.status == s])},
        "thresholds": _once(f.threshold for f in members),
        "expected_from": _once(f.expected_from for f in members),
        "references": _once(f.reference for f in members),
        "causes": _once(cause for f in flagged for cause in f.causes),
        "remedies": _once(remedy for f in flagged for remedy in f.remedies),
        "sites": _once(site for f in flagged for site in f.sites),
    }


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _alt(section: Section) -> str:
    """Describe the figure to a reader who cannot see it: what it shows, how to read it, what was found."""
    claims = " ".join(f.claim.rstrip(".") + "." for f in section.findings)
    return f"Figure: {section.analysis.title}. {section.reading} {claims}".strip()
