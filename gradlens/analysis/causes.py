"""Which finding explains which: causes in order, each with the symptoms that follow from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradlens.analysis.finding import SEVERITY, Finding, Status, worst

#: What asks for an explanation.
_FLAGGED: tuple[Status, ...] = ("warn", "fail")


@dataclass(frozen=True)
class Cause:
    """A flagged finding that no other explains, and what follows from it.

    Attributes:
        finding: the cause.
        symptoms: flagged findings on the same recording that it explains, by itself or through one another.
    """

    finding: Finding
    symptoms: tuple[Finding, ...] = ()

    @property
    def status(self) -> Status:
        """The worst of cause and symptoms."""
        return worst((self.finding, *self.symptoms))


def causes(findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """Return what is flagged as causes with their symptoms.

    A finding explains another of the same recording where it names its code and did not begin later, and some codes
    only where they are told of the same places; one that nobody explains is a cause. Where two explain each other, the
    one that explains more is the cause.

    Args:
        findings: in reading order.

    Returns:
        The causes: what ends worst first, of this last what concerns its own places alone; then what began first, then
        what explains most, then in reading order.
    """
    flagged = [finding for finding in findings if finding.status in _FLAGGED]
    followed = {index: _followed(index, flagged) for index in range(len(flagged))}
    order = sorted(followed, key=lambda index: (-len(followed[index]), _began(flagged[index])))
    taken: set[int] = set()
    found: list[tuple[int, Cause]] = []
    for index in order:
        if index not in taken:
            steps = followed[index]
            symptoms = sorted(steps.keys() - taken, key=lambda one: (_seen_from(flagged[one]), steps[one], one))
            taken |= {index, *symptoms}
            found.append((index, Cause(flagged[index], tuple(flagged[one] for one in symptoms))))
    found.sort(key=lambda pair: _urgency(*pair))
    return tuple(cause for _, cause in found)


def _urgency(index: int, cause: Cause) -> tuple[float, ...]:
    severity = SEVERITY.index(cause.status)
    aside = bool(cause.finding.explains_there) and not cause.finding.explains
    return -severity, aside, _began(cause.finding), -len(cause.symptoms), index


def _followed(index: int, flagged: Sequence[Finding]) -> dict[int, int]:
    """Return what follows from a finding, through one another, and through how many."""
    found = {index: 0}
    new = [index]
    for one in new:  # which grows meanwhile
        for other, finding in enumerate(flagged):
            if other not in found and _explains(flagged[one], finding):
                found[other] = found[one] + 1
                new.append(other)
    del found[index]
    return found


def _explains(cause: Finding, other: Finding) -> bool:
    named = {other.code, f"{other.code} {other.born}"}
    follows = bool(named & {*cause.explains}) or (bool(named & {*cause.explains_there}) and _is_there(cause, other))
    return follows and other.subject == cause.subject and _began(cause) <= _seen_from(other)


def _is_there(cause: Finding, other: Finding) -> bool:
    """Whether all sites of a finding are those of another, inside of them, or around them."""
    pairs = [[(f"{here}.", f"{site}.") for here in cause.sites] for site in other.sites]
    return bool(pairs) and all(any(a.startswith(b) or b.startswith(a) for a, b in each) for each in pairs)


def _began(finding: Finding) -> float:
    """Return the step from which on a cause is there; what is of the whole run is there from the first."""
    return -math.inf if finding.onset is None else finding.onset


def _seen_from(finding: Finding) -> float:
    """Return the step from which on a symptom is seen; what is of the whole run may have come at any step."""
    return math.inf if finding.onset is None else finding.onset
