"""A finding: one checked claim about recordings, with the number it rests on."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: A pass in which something is born; empty where that means nothing.
Pass = Literal["", "forward", "backward", "update"]
Status = Literal["pass", "warn", "fail", "inconclusive", "not applicable"]

#: Worst last; ``--fail-on`` and the order of the first page's table go by it.
SEVERITY: tuple[Status, ...] = ("not applicable", "pass", "inconclusive", "warn", "fail")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence that a reader can check.

    Attributes:
        code: stable identifier, such as ``GL102``; ``gradlens explain GL102`` tells more.
        status: what the numbers say of the claim.
        claim: one sentence, with the recording's label where there are several.
        subject: label of the recording (or variant) it speaks of; empty where it speaks of all.
        analysis: name of the analysis that judged it.
        value: the measured number; None where there is none.
        low: lower end of its 95 % confidence interval.
        high: upper end of it.
        unit: of value, low, high and expected; of a ratio or a share, what it is one of (``times the median``).
        expected: the number (or range, as text) that theory, a baseline or a paper gives.
        expected_from: where that comes from: theory and assumption, baseline recording, or paper and equation.
        threshold: the limit that decides, as text with its number.
        sites: the sites that show it, worst first.
        steps: the steps that show it.
        causes: likely causes, innocent ones too.
        remedies: what to try.
        reference: paper and equation.
        onset: the step from which on it is seen; None where it is of the whole run.
        born: the pass that shows it first, ``forward``, ``backward`` or ``update``; empty where that means nothing.
        explains: codes of findings on the same recording that follow from this one by themselves: its symptoms; with a
            pass, as ``GL309 backward``, of those alone that were born in it.
        explains_there: the same of those that are told of its own sites, of what is in them, or of what they are in.
        details: further numbers by name; with ``answer`` a finding that passes is told where nothing is flagged.
    """

    code: str
    status: Status
    claim: str
    analysis: str
    subject: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    expected: float | str | None = None
    expected_from: str = ""
    threshold: str = ""
    sites: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    causes: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    reference: str = ""
    onset: int | None = None
    born: Pass = ""
    explains: tuple[str, ...] = ()
    explains_there: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Finding({self.code}, {self.status}: {self.claim})"

    def _repr_html_(self) -> str:
        from gradlens.analysis.notebook import finding_html

        return finding_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


def worst(findings: "list[Finding] | tuple[Finding, ...]") -> Status:
    """Return the worst status among the findings; ``not applicable`` where there is none."""
    return max((f.status for f in findings), key=SEVERITY.index, default="not applicable")


def place(name: str) -> str:
    """Write a module's path for a sentence; what is a number alone is said to be a module."""
    return f"module {name}" if name.isdecimal() else name or "the model itself"
