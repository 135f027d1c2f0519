"""Findings of one check that say alike, told once: what they claim, whose they are, and the range of their numbers."""

import re
from collections.abc import Sequence
from typing import Any

from gradlens.analysis.finding import Finding
from gradlens.reporting import story
from gradlens.reporting.numbers import number

_NUMBERS = re.compile(r"\d[\d.,]*")


def folded(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings of one code and status as one.

    Args:
        findings: at least one.

    Returns:
        ``count``; ``subjects``, whom they are of; ``said``, their claim without its subject where it is the same for
        all, else what of it is the same, empty where nothing is; ``alike``, every claim that differs in more than its
        numbers; ``measured``, their number, or the range of their numbers, with its unit.
    """
    claims = dict.fromkeys(_without_subject(finding.claim, finding) for finding in findings)
    headlines = {_without_subject(story.headline(finding), finding) for finding in findings}
    same = claims if len(claims) == 1 else headlines
    alike: dict[str, list[str]] = {}
    for claim in claims:
        alike.setdefault(_NUMBERS.sub("#", claim), []).append(claim)
    return {
        "count": len(findings),
        "subjects": list(dict.fromkeys(finding.subject for finding in findings if finding.subject)),
        "said": next(iter(same)) if len(same) == 1 else "",
        "alike": [_first(texts) for texts in alike.values()],
        "measured": _measured(findings),
    }


def _measured(findings: Sequence[Finding]) -> str:
    """Print the numbers of findings: one where they agree, else the lowest and the highest; nothing for none."""
    values = sorted(finding.value for finding in findings if finding.value is not None)
    if not values:
        return ""
    ends = dict.fromkeys((number(values[0]), number(values[-1])))
    units = {finding.unit for finding in findings if finding.value is not None}
    return f"{' to '.join(ends)} {units.pop() if len(units) == 1 else ''}".strip()


def _without_subject(text: str, finding: Finding) -> str:
    return text.removeprefix(f"{finding.subject}: ")


def _first(texts: Sequence[str]) -> str:
    """Return the first of texts that differ in their numbers alone, and how many more there are."""
    return texts[0] if len(texts) == 1 else f"{texts[0].rstrip('.')} (and {len(texts) - 1} alike)."
