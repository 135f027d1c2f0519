"""What the first page says where it is not the story of a comparison: that of a paper's reproduction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gradlens.analysis.comparison import Comparison, Section
from gradlens.analysis.finding import Finding, Status
from gradlens.reporting import story


@dataclass(frozen=True, kw_only=True)
class Cover:
    """The first page in place of a comparison's own.

    Attributes:
        heading: title, and the line below it.
        subtitle: in small print below both.
        verdict: sentences.
        table: printed on the first page, texts as they are.
    """

    heading: tuple[str, str]
    subtitle: str
    verdict: tuple[str, ...]
    table: pd.DataFrame

    @classmethod
    def of_study(cls, name: str, title: str, reference: str, budget: str, comparison: Comparison) -> "Cover":
        """Return the first page on a study: what became of its claims, and the first table that a section shows.

        Args:
            name: of the study; the analysis ``<name>_claims`` judges the paper's claims.
            title: of the paper.
            reference: authors, year, number.
            budget: its name and what it is for.
            comparison: the study's recordings, asked the paper's questions.
        """
        judged = next((s for s in comparison.sections if s.analysis.name == f"{name}_claims"), None)
        codes = judged.analysis.codes if judged else {}
        claims = _claims(list(judged.findings) if judged else [], {c: story.first_clause(t) for c, t in codes.items()})
        shown = (table for section in comparison.sections for table in section.shown.values())
        return cls(
            heading=(title, "The experiment run again, and its claims tested"),
            subtitle=f"{reference} · budget {budget} · {_size(comparison)}",
            verdict=(*_what_was_done(comparison), *claims, *_checks(comparison, judged)),
            table=next(shown, pd.DataFrame()),
        )

    @property
    def cells(self) -> tuple[list[tuple[str, str]], list[list[str]]]:
        """The table's heads, each of two lines (behind its first word), and its rows."""
        heads = [(first, rest) for first, _, rest in (str(column).partition(" ") for column in self.table)]
        return heads, [[str(cell) for cell in row] for row in self.table.itertuples(index=False)]


def _size(comparison: Comparison) -> str:
    tasks = {(r.meta.get("task") or {}).get("name") for r in comparison.recordings}
    seeds = {tuple(r.meta.get("seeds") or ()) for r in comparison.recordings}
    return " · ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in ((len(tasks), "task"), (len(seeds), "seed")))


def _what_was_done(comparison: Comparison) -> list[str]:
    metas = [recording.meta for recording in comparison.recordings]
    trained = [meta for meta in metas if meta.get("kind") != "init" and "limit" not in meta]
    said = []
    if trained:
        said.append(f"{_models(trained)} were trained side by side in {_runs(trained)}.")
    if pushed := [meta for meta in metas if "limit" in meta]:  # some of them are meant to diverge
        factors = [meta["limit"]["factor"] for meta in pushed]
        times = f"{min(factors):g} to {max(factors):g} times the learning rate predicted as their limit"
        said.append(f"{_models(pushed)} were trained at {times} in {_runs(pushed)}.")
    if measured := [meta for meta in metas if meta.get("kind") == "init"]:
        seeds = sum(len(meta.get("seeds") or ()) for meta in measured)
        said.append(f"{_models(measured)} were measured at initialization: {len(measured)} networks, {seeds} seeds.")
    return said


def _runs(metas: Sequence[Mapping[str, Any]]) -> str:
    diverged = sum(meta.get("status") == "diverged" for meta in metas)
    if len(metas) == 1:
        return f"1 run under the lens, which {'diverged' if diverged else 'did not diverge'}"
    return f"{len(metas)} runs under the lens; {diverged or 'none'} of them diverged"


def _models(metas: Sequence[Mapping[str, Any]]) -> str:
    """Say how many norms there are or, of one norm, how many arrangements."""
    models = [meta.get("model") or {} for meta in metas]
    norms, arrangements = ({model.get(part) for model in models} for part in ("norm", "arrangement"))
    several = len(norms - {"none"}) > 1
    return f"{len(norms)} norms" if several else f"{len(arrangements)} arrangements"


def _checks(comparison: Comparison, judged: Section | None) -> list[str]:
    """Say how the checks that are no claims of the paper came out."""
    found = [finding.status for section in comparison.sections if section is not judged for finding in section.findings]
    statuses: tuple[Status, ...] = ("pass", "warn", "fail", "inconclusive")
    counted = [f"{found.count(status)} {status}" for status in statuses if status in found]
    return [f"Other checks: {', '.join(counted)}."] if counted else []


def _claims(tested: list[Finding], titles: Mapping[str, str]) -> list[str]:
    """Say of each of the paper's claims what became of it, by its title: the numbers stand with the checks."""
    words: dict[Status, str] = {
        "pass": "Reproduced",
        "fail": "Not reproduced",
        "inconclusive": "Undecided with the seeds at hand",
        "not applicable": "Not tested",
    }
    said = []
    for status, word in words.items():
        claims = [titles[finding.code] for finding in tested if finding.status == status]
        said += [f"{word}: {'; '.join(claims)}."] if claims else []
    return said
