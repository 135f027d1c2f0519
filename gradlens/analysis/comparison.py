"""Recordings side by side: every analysis asked of all of them, the answers in one value."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import pandas as pd
from matplotlib.figure import Figure

from gradlens.analysis.causes import Cause, causes
from gradlens.analysis.contract import Analysis
from gradlens.analysis.discover import discover
from gradlens.analysis.figures import draw, draw_strip
from gradlens.analysis.finding import Finding
from gradlens.analysis.notebook import html, show, tally
from gradlens.analysis.summary import summary
from gradlens.errors import NothingFoundError, UnknownNameError
from gradlens.recording import Recording
from gradlens.text import printable

#: Letters of a label that tables and legends have room for, and more.
_LONGEST_LABEL = 120
#: Recordings that one line names.
_MOST_NAMED = 4


@dataclass(frozen=True)
class Section:
    """One analysis and its answer.

    Attributes:
        analysis: the question.
        labels: the recordings it was asked of.
        table: every number that is drawn or judged.
        findings: what it found.
        lacking: label to the columns that the analysis reads and the recording does not have.
    """

    analysis: Analysis
    labels: tuple[str, ...]
    table: pd.DataFrame
    findings: tuple[Finding, ...]
    lacking: Mapping[str, tuple[str, ...]]

    @property
    def drawn(self) -> bool:
        """Whether it has a figure."""
        return self.analysis.plot is not None and not self.table.empty and self.reading != ""

    @cached_property
    def reading(self) -> str:
        """How to read its figure or tables, of what is in them."""
        return self.analysis.reading if self.analysis.caption is None else self.analysis.caption(self.table)

    @property
    def silent(self) -> bool:
        """Whether it has nothing to say to a reader: no row, and no finding but that there is none."""
        idle = all(finding.status == "not applicable" for finding in self.findings)
        return self.table.empty and (idle or self.analysis.optional)

    @cached_property
    def shown(self) -> Mapping[str, pd.DataFrame]:
        """Caption to a table that is printed whole."""
        return {} if self.analysis.show is None or self.table.empty else self.analysis.show(self.table)


@dataclass(frozen=True)
class Comparison:
    """Recordings, and what the analyses say of them, in reading order.

    Attributes:
        recordings: what was compared; their labels differ.
        sections: one an analysis.
    """

    recordings: tuple[Recording, ...]
    sections: tuple[Section, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, in reading order."""
        return tuple(finding for section in self.sections for finding in section.findings)

    @cached_property
    def causes(self) -> tuple[Cause, ...]:
        """What is flagged, in order of cause: each cause with the symptoms that it explains."""
        return causes(self.findings)

    def __repr__(self) -> str:
        first = f"; first {self.causes[0].finding!r}" if self.causes else ""
        several = len(self.recordings)
        of = f"{several} recordings" if several > _MOST_NAMED else ", ".join(r.label for r in self.recordings)
        return f"Comparison({of}: {tally(self.findings)}{first})"

    def _repr_html_(self) -> str:
        return html(self.causes, self.findings)

    def show(self) -> None:
        """Show verdict and figures in a notebook; elsewhere say how to have them."""
        show({s.analysis.title: self.figures[s.analysis.name] for s in self.sections if s.drawn}, self._repr_html_())

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Name of the analysis to its table."""
        return {section.analysis.name: section.table for section in self.sections}

    @cached_property
    def summary(self) -> pd.DataFrame:
        """The numbers that tell the story, a row a recording, summed up on first use."""
        return summary(self.recordings)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Name of the analysis to its figure, drawn on first use; none where it draws nothing or its table is empty."""
        return {s.analysis.name: draw(s.analysis, s.table) for s in self.sections if s.drawn}

    @cached_property
    def strip(self) -> Figure | None:
        """The course of the runs for a report's first page, with the onsets of causes; None where nothing tells it."""
        section = self.told_first
        found = [cause.finding for cause in self.causes]
        return None if section is None else draw_strip(section.analysis, section.table, found)

    @property
    def told_first(self) -> Section | None:
        """The section whose analysis draws the first page's strip: training, where there is any, else depth."""
        return next((s for s in reversed(self.sections) if s.drawn and s.analysis.strip is not None), None)


def compare(
    recordings: Sequence[Recording],
    analyses: Sequence[Analysis] | None = None,
    *,
    reference: Recording | None = None,
    margin: float | None = None,
) -> Comparison:
    """Ask every analysis of the recordings it can use.

    Args:
        recordings: at least one. Where two share a label, the name of the run folder or a number is added.
        analyses: the questions; by default those of every installed package.
        reference: a run that went well, for what one should expect of the others; it is not judged itself.
        margin: of two runs, the share by which the loss of the second may be higher at the end, and its gradient norm
            and re-scaling be another; with a reference of that and each run.

    Returns:
        The answers.

    Raises:
        NothingFoundError: there is no recording.
        GradlensError: a package's analyses cannot be loaded.
    """
    if not recordings:
        raise NothingFoundError("A comparison needs at least one recording; got none.")
    known = [] if reference is None else [_told(reference, kind="reference")]
    named = _with_distinct_labels([_with_printable_label(r.over_processes()) for r in (*recordings, *known)])
    if margin is not None:
        named = tuple(_told(recording, margin=margin) for recording in named)
    questions = discover() if analyses is None else analyses
    return Comparison(named, tuple(_section(analysis, named) for analysis in questions))


def plot(recordings: Sequence[Recording], analysis: str) -> Figure:
    """Draw the figure of one analysis.

    Args:
        recordings: at least one.
        analysis: its name, as in ``gradlens list``, such as ``training_curves``.

    Returns:
        A matplotlib figure that belongs to no window.

    Raises:
        UnknownNameError: there is none of that name.
        NothingFoundError: there is no recording, or the analysis draws nothing of these.
    """
    known = {question.name: question for question in discover()}
    if analysis not in known:
        raise UnknownNameError("analysis", analysis, known)
    (section,) = compare(recordings, [known[analysis]]).sections
    if not section.drawn:
        said = " ".join(dict.fromkeys(finding.claim for finding in section.findings))
        raise NothingFoundError(f"There is no figure {analysis!r} of these recordings. {said}".strip())
    return draw(section.analysis, section.table)


def _section(analysis: Analysis, recordings: Sequence[Recording]) -> Section:
    """Ask one analysis of the recordings whose kind it can use."""
    usable = tuple(r for r in recordings if r.meta.get("kind") in analysis.kinds)
    try:
        table = analysis.compute(usable)
        findings = tuple(analysis.judge(table))
    except Exception as error:
        error.add_note(f"This happened in the analysis {analysis.name!r}.")
        raise
    lacking = {r.label: missing for r in usable if (missing := _lacking(analysis, r))}
    return Section(analysis, tuple(r.label for r in usable), table, findings, lacking)


def _lacking(analysis: Analysis, recording: Recording) -> tuple[str, ...]:
    """Return the columns the analysis reads of which the recording holds no value, as ``table.column``."""
    tables = {name: recording.table(name) for name in analysis.needs}
    return tuple(
        f"{name}.{column}"
        for name, columns in analysis.needs.items()
        for column in columns
        if column not in tables[name] or not tables[name][column].notna().any()
    )


def _with_printable_label(recording: Recording) -> Recording:
    """Return the recording with a label that a terminal and a typesetter can print."""
    label = printable(recording.label)
    label = label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
    return recording if label == recording.label else _told(recording, label=label)


def _with_distinct_labels(recordings: Sequence[Recording]) -> tuple[Recording, ...]:
    """Return the recordings with labels that differ, so that every finding and curve says whose it is."""
    shared = {label for label, count in Counter(r.label for r in recordings).items() if count > 1}
    taken: set[str] = {r.label for r in recordings if r.label not in shared}
    out = []
    for recording in recordings:
        label = recording.label
        if label in shared:
            hint = recording.path.name if recording.path and recording.path.name != label else "1"
            label = _free(f"{recording.label} ({hint})", recording.label, taken)
            taken.add(label)
            recording = _told(recording, label=label)
        out.append(recording)
    return tuple(out)


def _free(wanted: str, label: str, taken: set[str]) -> str:
    """Return the wanted label, or the label with the first free number."""
    number = 1
    while wanted in taken:
        number += 1
        wanted = f"{label} ({number})"
    return wanted


def _told(recording: Recording, **meta: str | float) -> Recording:
    """Return the same recording with other metadata."""
    twin = copy.copy(recording)
    twin.meta = MappingProxyType({**recording.meta, **meta})
    return twin
