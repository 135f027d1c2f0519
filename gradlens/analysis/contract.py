"""What an analysis is: one question asked of recordings, its numbers, its picture and its verdict apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from gradlens.analysis.finding import Finding
from gradlens.recording import Recording
from gradlens.recording.schema import PUBLIC


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One entry of a package's ``ANALYSES`` tuple.

    Attributes:
        name: snake_case identifier, the file's name; also the key of the table and figure.
        title: heading of its section.
        question: the question it answers, one sentence, ending in a question mark.
        reading: how to read the figure or tables, two or three sentences (the figure's alt text is made from it).
        needs: table name to the columns it reads; where a recording lacks them the section says so.
        uses: the same of columns that it reads besides, where there are any. What is neither needed nor used may not be
            there when it asks: of a large recording only what some analysis reads is read. Sites,
            steps, outputs and probes are whole.
        kinds: the recording kinds it can use (``"init"``, ``"training"``, ``"attached"``; ``"reference"``, the run that
            was named as one).
        compute: recordings to one DataFrame that holds every number that is drawn or judged.
        plot: draws what is in the table, and nothing else, on an empty figure; None where there is nothing to draw.
        show: the table as small ones by their captions, printed whole; for an answer that is read, not drawn.
        judge: the table to findings.
        size: width and height of the figure in inches (the page's text is 6.7 inches wide).
        codes: the finding codes it may give, with a paragraph on each for ``gradlens explain``.
        reference: paper(s) with equation or theorem.
        caption: the reading of one table, where it may hold less than the reading tells of, and empty where nothing of
            it is drawn; by default the reading.
        strip: draws the course of the run for the first page, from the table and the causes that were found, whose
            onsets it marks; 6.7 by 1.8 inches. Of several analyses that have one, the last in reading order draws.
        strip_shows: what it shows, for a reader who cannot see it.
        optional: whether a report is silent where its table is empty, instead of saying that nothing is there.
    """

    name: str
    title: str
    question: str
    reading: str
    needs: Mapping[str, Sequence[str]]
    compute: Callable[[Sequence[Recording]], pd.DataFrame]
    judge: Callable[[pd.DataFrame], list[Finding]]
    uses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    plot: Callable[[pd.DataFrame, Figure], None] | None = None
    show: Callable[[pd.DataFrame], Mapping[str, pd.DataFrame]] | None = None
    kinds: tuple[str, ...] = ("init", "training", "attached")
    size: tuple[float, float] = (6.7, 3.4)
    codes: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""
    caption: Callable[[pd.DataFrame], str] | None = None
    strip: Callable[[pd.DataFrame, Figure, Sequence[Finding]], None] | None = None
    strip_shows: str = "loss and gradient norm over the steps"
    optional: bool = False


def columns_read(*read: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """Return table to all columns that are read of it, as ``needs`` and ``uses`` of analyses name them."""
    return {table: frozenset().union(*(of.get(table, ()) for of in read)) for table in PUBLIC}
