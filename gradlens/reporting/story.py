"""The first page in words: what was looked at, and the verdict that a colleague would give in a minute."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from gradlens.analysis.causes import Cause
from gradlens.analysis.comparison import Comparison
from gradlens.analysis.finding import Finding, Status, place
from gradlens.recording import Recording
from gradlens.reporting.numbers import ABSENT, count, number

#: More names than these are counted instead of listed.
_MOST_NAMES = 4
#: More places of a cause than these are counted.
_MOST_PLACES = 2
#: More causes than these are left to the table of checks.
_MOST_CLAIMS = 3
#: More models than these are ranked instead of naming the best and the worst run; of more than those, the ends.
_MOST_COMPARED, _MOST_RANKED = 2, 12


def heading(comparison: Comparison) -> tuple[str, str]:
    """Name what is compared, and say what for."""
    names = subjects(comparison.recordings)
    if len(names) == 1:
        return names[0], "What normalization does to its gradients"
    named = _and(names) if len(names) <= _MOST_NAMES else f"{len(names)} models side by side"
    return named, "What normalization does to their gradients"


def subjects(recordings: Iterable[Recording]) -> list[str]:
    """Return the variants, or labels of what is no variant, each once, in order; no reference."""
    judged = (r for r in recordings if r.meta.get("kind") != "reference")
    return list(dict.fromkeys(str(r.meta.get("variant") or r.label) for r in judged))


def subtitle(comparison: Comparison) -> str:
    """Say in a line which model, which task and how much was recorded, as far as all recordings share it."""
    recordings = comparison.recordings
    parts = [
        _model(shared(recordings, "model")),
        _weights(recordings),
        _task(shared(recordings, "task")),
        *_amounts(recordings),
    ]
    return " · ".join(part for part in parts if part)


def shared(recordings: Iterable[Recording], key: str) -> Mapping[str, Any]:
    """Return what all recordings that have the metadata ``key`` agree on in it."""
    records = [dict(value) for r in recordings if isinstance(value := r.meta.get(key), Mapping)]
    if not records:
        return {}
    return {k: v for k, v in records[0].items() if all(k in other and other[k] == v for other in records)}


def verdict(comparison: Comparison) -> list[str]:
    """Tell the story in sentences.

    Args:
        comparison: what was found.

    Returns:
        What is wrong, from its causes on; what was done, how training ended, and how many checks say what.
    """
    sentences = [_what_was_done(comparison), *_endings(comparison.summary), *_losses(comparison)]
    return [*diagnosis(comparison), *sentences, _tally(comparison)]


def _model(model: Mapping[str, Any]) -> str:
    if not model.get("family"):
        return ""
    name = str(model["family"]).capitalize() if model["family"] == "transformer" else str(model["family"])
    parts = [f"{name} {model['kind']}" if model.get("kind") else name]
    parts += [f"{model['blocks']} block{'' if model['blocks'] == 1 else 's'}"] if model.get("blocks") else []
    parts += [f"width {model['width']}"] if model.get("width") else []
    return ", ".join(parts)


def _weights(recordings: Iterable[Recording]) -> str:
    """Return the number of weights where all models have about the same."""
    counts = {count((r.meta.get("model") or {}).get("parameters")) for r in recordings}
    return f"{counts.pop()} weights" if len(counts) == 1 and ABSENT not in counts else ""


def _task(task: Mapping[str, Any]) -> str:
    if not task.get("name"):
        return ""
    return f"task {task['name']}" + (f" ({task['origin']})" if task.get("origin") else "")


def _amounts(recordings: Iterable[Recording]) -> list[str]:
    """Return how many seeds were measured and how many steps trained."""
    recordings = list(recordings)
    seeds = sorted({len(r.steps) for r in recordings if r.meta.get("kind") == "init"})
    steps = sorted({len(r.steps) for r in recordings if r.meta.get("kind") != "init"})
    parts = []
    if seeds:
        parts.append(f"{_range(seeds)} seed{'s' if seeds[-1] != 1 else ''} at initialization")
    if steps:
        parts.append(f"{_range(steps)} recorded step{'s' if steps[-1] != 1 else ''} of training")
    return parts


def _range(values: list[int]) -> str:
    return number(values[0]) if len(values) == 1 else f"{number(values[0])} to {number(values[-1])}"


def _what_was_done(comparison: Comparison) -> str:
    init = [r for r in comparison.recordings if r.meta.get("kind") == "init"]
    trained = [r for r in comparison.recordings if r.meta.get("kind") not in ("init", "reference")]
    parts = []
    if init:
        parts.append(f"{_and(subjects(init))} {_was(len(subjects(init)))} measured at initialization")
    if trained:
        runs = "1 training run" if len(trained) == 1 else f"{len(trained)} training runs"
        parts.append(f"{runs} {_was(len(trained))} recorded")
    return _sentence(" and ".join(parts))


def _endings(numbers: pd.DataFrame) -> list[str]:
    """Say which recordings did not come to their end."""
    ends = {"diverged": "diverged", "interrupted": "stopped before the end", "running": "had not ended yet"}
    return [
        _sentence(f"{_and(list(rows['recording']))} {ends[str(status)]}")
        for status, rows in numbers.groupby("status", sort=False)
        if status in ends
    ]


def _losses(comparison: Comparison) -> list[str]:
    """Name the best and the worst run, of many models rank them; by held-out loss where every run has one."""
    trained = comparison.summary[comparison.summary["loss"].notna()]
    if len(trained) < 2:
        return []
    held_out = trained["valid_loss"].notna().all()
    column, what = ("valid_loss", "held-out loss") if held_out else ("loss", "training loss")
    unit = shared(comparison.recordings, "task").get("unit", "")
    model = {r.label: str(r.meta.get("variant") or r.label) for r in comparison.recordings}
    best = trained.groupby(trained["recording"].map(model))[column].min().sort_values(kind="stable")
    if len(best) > _MOST_COMPARED:
        return [f"By the {what} of its best run{f', in {unit}' if unit else ''}: {_ranked(best)}."]
    low, high = (trained.loc[getattr(trained[column], f"idx{which}")()] for which in ("min", "max"))
    return [
        f"The {what} is lowest for {low['recording']} ({f'{number(float(low[column]))} {unit}'.rstrip()}) and highest "
        f"for {high['recording']} ({number(float(high[column]))})."
    ]


def _ranked(values: "pd.Series[float]") -> str:
    """List names with their values, the lowest first; of very many the first and the last."""
    said = [f"{name} ({number(float(value))})" for name, value in values.items()]
    if len(said) <= _MOST_RANKED:
        return _and(said)
    half = _MOST_RANKED // 2
    return f"{', '.join(said[:half])}, {len(said) - 2 * half} more, and last {_and(said[-half:])}"


def headline(finding: Finding) -> str:
    """Return what a finding claims without its numbers: no brackets that hold any, nothing behind a colon."""
    text = re.sub(r"\s*\([^()]*\d[^()]*\)", "", finding.claim).rstrip(".")
    subject = f"{finding.subject}: "
    if not text.startswith(subject):
        return text
    return subject + text.removeprefix(subject).partition(": ")[0]


def first_clause(text: str) -> str:
    """Return a paragraph's first words, up to the first stop, colon or bracket: its title."""
    return re.split(r"[.:;]\s|\s\(", text)[0].rstrip(".")


def diagnosis(comparison: Comparison) -> list[str]:
    """Tell the first causes in sentences: what, since when, how sure, what followed, and what to try first.

    Args:
        comparison: what was found.

    Returns:
        The sentences. Where nothing is flagged, what one should expect and what was found, of one recording; else none.
    """
    told = list(_told(comparison.causes))
    if told or len(subjects(comparison.recordings)) != 1:
        return told
    answers = [finding for finding in comparison.findings if finding.status == "pass" and finding.details.get("answer")]
    return ["Nothing asks for a look.", *(_sentence(finding.claim) for finding in answers)] if answers else []


def _told(causes: Sequence[Cause]) -> Iterator[str]:
    before = ""
    groups = _alike(causes)
    for alike in groups[:_MOST_CLAIMS]:
        cause, finding = alike[0], alike[0].finding
        subject = f"{finding.subject}: "
        said = headline(finding)
        if len(alike) > 1:
            whose = [one.finding.subject for one in alike]
            named = _and(whose) if len(whose) <= _MOST_NAMES else f"{len(whose)} recordings"
            said = f"{named}: {said.removeprefix(subject)}"
        elif subject == before and said.startswith(subject):
            said = f"Also, {said.removeprefix(subject)}"
        before = subject
        when = "" if finding.onset is None or f"step {finding.onset}" in said else f", from step {finding.onset} on"
        where = finding.born + (" pass" if finding.born in ("forward", "backward") else "")
        born = f", born in the {where}" if finding.born and finding.born not in said else ""
        yield _sentence(f"{said}{_at(finding.sites, said)}{when}{born} ({finding.code}, {_sure(finding)})")
        if cause.symptoms:
            symptoms = [f"{headline(f).removeprefix(subject)} ({f.code})" for f in cause.symptoms[:_MOST_NAMES]]
            more = len(cause.symptoms) - len(symptoms)
            symptoms += [f"{more} more"] if more else []
            yield _sentence(f"What follows from it: {'; '.join(symptoms)}")
        if finding.remedies:
            first = finding.remedies[0]
            yield _sentence(f"Try first: {first[:1].lower() + first[1:] if first[1:2].islower() else first}")
    if len(groups) > _MOST_CLAIMS:
        yield f"{sum(map(len, groups[_MOST_CLAIMS:]))} more below."


def _alike(causes: Sequence[Cause]) -> list[list[Cause]]:
    """Bring causes together that say the same of several recordings and explain nothing more."""
    groups: dict[object, list[Cause]] = {}
    for index, cause in enumerate(causes):
        finding = cause.finding
        said = headline(finding).removeprefix(f"{finding.subject}: ")
        same = (finding.code, said, finding.onset, finding.born, finding.remedies[:1], _sure(finding))
        groups.setdefault(index if cause.symptoms or not finding.subject else same, []).append(cause)
    return list(groups.values())


def _at(sites: Sequence[str], said: str) -> str:
    """Name the worst places, where what is said already does not."""
    if any(site in said for site in sites[:1]):
        return ""
    named = [place(site) for site in sites if site][:_MOST_PLACES]
    more = [f"{len(sites) - _MOST_PLACES} more"] if len(sites) > _MOST_PLACES else []
    return f", at {_and([*named, *more])}" if named else ""


def _sure(finding: Finding) -> str:
    """Say how sure a flagged finding is: an estimate lies beyond its limit with its whole interval."""
    return "observed" if finding.low is None else "95 % sure"


def _tally(comparison: Comparison) -> str:
    """Count the findings of the sections that are printed."""
    findings = [finding for section in comparison.sections if not section.silent for finding in section.findings]
    if not findings:
        return "No check was made: none of the installed analyses found what it needs."
    counts = Counter(f.status for f in findings)
    words: dict[Status, str] = {
        "fail": "failed",
        "warn": "asks for a look" if counts["warn"] == 1 else "ask for a look",
        "inconclusive": "could not be decided",
        "pass": "passed",
        "not applicable": "did not apply",
    }
    said = [f"{counts[status]} {word}" for status, word in words.items() if counts[status]]
    total = f"Of {len(findings)} checks" if len(findings) > 1 else "Of 1 check"
    return _sentence(f"{total}, {_and(said)}")


def _was(how_many: int) -> str:
    return "was" if how_many == 1 else "were"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sentence(text: str) -> str:
    """End with a full stop, as sentences do."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
