"""Recordings read and findings shown: what the commands on finished runs have in common."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradlens.cli import terminal
from gradlens.cli.state import state
from gradlens.errors import GradlensError, NothingFoundError
from gradlens.lab.operands import runs_in
from gradlens.recording import Recording, load

if TYPE_CHECKING:
    from gradlens.analysis import Comparison, Finding
    from gradlens.reporting import Cover


def read(folders: Iterable[Path]) -> list[Recording]:
    """Load run folders; the folder of a comparison stands for its runs.

    Raises:
        RecordingError: one is missing, foreign or damaged.
        NothingFoundError: no step was recorded in any.
    """
    columns = declared()
    found = [load(run, columns) for folder in folders for run in runs_in(folder)]
    recordings = [recording for recording in found if not recording.steps.empty]
    empty = [str(recording.path) for recording in found if recording.steps.empty]
    if not recordings:
        raise NothingFoundError(
            f"A report needs recorded steps; {', '.join(empty)} has none. "
            "Run a training step with the lens attached, and call lens.step()."
        )
    if empty:
        terminal.note(f"Left out, for no step is recorded there yet: {', '.join(empty)}.")
    return recordings


def declared() -> dict[str, frozenset[str]]:
    """Return table to the columns that the installed analyses and the pages of a report read of it."""
    from gradlens.analysis import summary
    from gradlens.analysis.contract import columns_read
    from gradlens.analysis.discover import discover
    from gradlens.reporting import record
    from gradlens.reporting.html import sites

    analyses = discover()
    needed, used = ([getattr(analysis, of) for analysis in analyses] for of in ("needs", "uses"))
    return columns_read(*needed, *used, summary.READS, record.READS, sites.READS)


def read_reference(folder: Path | None) -> Recording | None:
    """Load the run that others are held against; None where none is named.

    Raises:
        RecordingError: it is missing, foreign or damaged.
        NothingFoundError: no step was recorded in it.
        GradlensError: the folder holds several runs.
    """
    if folder is None:
        return None
    found = read([folder])
    if len(found) > 1:
        raise GradlensError(f"--reference takes one run; {folder} holds {len(found)}. Name the folder of one of them.")
    return found[0]


def show(comparison: "Comparison", *, as_json: bool, cover: "Cover | None" = None, **facts: Any) -> None:
    """Print summary and findings.

    Args:
        comparison: whose.
        cover: the first page's table in place of a line a recording.
        as_json: as one JSON object on stdout instead of text.
        facts: what else the object holds.
    """
    from gradlens.reporting import causes_of, findings_text, summary_text, verdict_text

    if as_json:
        rows = (cover.table if cover else comparison.summary).to_dict("records")
        found = {"causes": causes_of(comparison), "findings": [f.to_dict() for f in comparison.findings]}
        terminal.result_json({**facts, "summary": rows, **found})
        return
    findings = findings_text(comparison, width=terminal.width(), verbose=state().verbose)
    told = "" if cover else verdict_text(comparison, width=terminal.width())
    terminal.result("\n\n".join(filter(None, (summary_text(comparison, cover), told, findings))))


def deciding(comparison: "Comparison", margin: float | None) -> tuple["Finding", ...]:
    """Return the findings that decide the exit code: all, or with a margin what holds one run against another."""
    return tuple(f for f in comparison.findings if margin is None or f.analysis == "parting")


def leave(comparison: "Comparison", fail_on: str | None, margin: float | None = None) -> None:
    """End the program with code 1 where a finding is as bad as ``fail_on`` or worse.

    Args:
        comparison: whose.
        fail_on: the status; None to end well whatever was found.
        margin: that was asked for; what else is found then plays no part.

    Raises:
        NothingFoundError: there is nothing that a margin could be held against.
    """
    from gradlens.analysis import SEVERITY, worst

    found = deciding(comparison, margin)
    if fail_on is None:
        return
    if SEVERITY.index(worst(found)) >= SEVERITY.index(fail_on):
        click.get_current_context().exit(1)
    if margin is not None and not {"pass", "inconclusive"} & {f.status for f in found if f.code in ("GL322", "GL324")}:
        raise NothingFoundError(
            "--margin needs a loss or a gradient norm of four steps that both runs recorded; there is none. Pass the "
            "loss to step(loss=...)."
        )
