"""How a finding is made: what all findings of a code share stands once, the rest comes from what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analyses import limits
from gradlens.analysis import Finding, Status

_NUMBERS = ("value", "low", "high")
_SHARED = (
    "unit",
    "expected",
    "expected_from",
    "threshold",
    "causes",
    "remedies",
    "reference",
    "explains",
    "explains_there",
)
#: What a run shows whose model, data or optimizer is at fault, whatever the fault: causes name them as symptoms.
SYMPTOMS = (
    "GL101", "GL203", "GL301", "GL303", "GL304", "GL305", "GL306", "GL311", "GL402", "GL403", "GL404", "GL411",
    "GL412", "GL704",
)  # fmt: skip
#: What steps that are far too large make of a run besides.
OVERSHOT = ("GL204", "GL307", "GL308", "GL309", "GL310", "GL311", "GL406", "GL407")


@dataclass(frozen=True, kw_only=True)
class Check:
    """What all findings of one code share.

    Attributes:
        code: stable identifier, such as ``GL102``.
        analysis: name of the analysis that judges.
        explanation: a paragraph for ``gradlens explain``.
        unit: as in ``Finding``, and so are those that follow, as far as they depend on nothing measured. A text may
            name limits of the code, as in ``below {most:g}``.
        expected: a number, or a range as text.
        expected_from: where that comes from.
        threshold: the limit that decides.
        causes: likely ones.
        remedies: what to try.
        reference: paper and equation.
        explains: codes of findings that follow from it by themselves.
        explains_there: codes of those that do where they are told of the same places.
    """

    code: str
    analysis: str
    explanation: str
    unit: str = ""
    expected: float | str | None = None
    expected_from: str = ""
    threshold: str = ""
    causes: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    reference: str = ""
    explains: tuple[str, ...] = ()
    explains_there: tuple[str, ...] = ()

    def finding(
        self,
        status: Status,
        claim: str,
        subject: str = "",
        row: Mapping[str, Any] | pd.Series | None = None,
        **own: Any,
    ) -> Finding:
        """Return a finding.

        Args:
            status: what the numbers say.
            claim: one sentence.
            subject: the recording's label.
            row: of a table, whose ``value``, ``low`` and ``high`` are taken.
            own: other attributes of a ``Finding``; each stands instead of what is shared or in the row.
        """
        shared = {name: self._written(getattr(self, name)) for name in _SHARED}
        measured = {} if row is None else {name: None if pd.isna(row[name]) else float(row[name]) for name in _NUMBERS}
        return self.silent(claim, subject, **{"status": status, **shared, **measured, **own})

    def silent(self, claim: str, subject: str = "", **own: Any) -> Finding:
        """Return a finding that judges nothing, and so says nothing of what is shared.

        Args:
            claim: one sentence: why there is nothing to judge.
            subject: the recording's label.
            own: other attributes of a ``Finding``.
        """
        facts = {"status": "not applicable", "code": self.code, "analysis": self.analysis, "subject": subject}
        return Finding(claim=claim, **{**facts, **own})

    def limit(self, name: str) -> float:
        """Return a threshold of the code."""
        return limits.limit(self.code, name)

    def _written(self, fact: Any) -> Any:
        """Return a fact; in a text, names of limits are replaced by their numbers."""
        return fact.format(**limits.of(self.code)) if isinstance(fact, str) else fact


def codes(*checks: Check) -> dict[str, str]:
    """Return code to explanation, as an ``Analysis`` names them; names of limits are replaced by their numbers."""
    return {check.code: str(check._written(check.explanation)) for check in checks}
