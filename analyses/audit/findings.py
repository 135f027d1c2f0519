"""What ``audit`` says: GL001, a finding for everything that a lens missed, and one where it missed nothing."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from analyses.audit.numbers import NO_NORM
from analyses.audit.words import name_of, some
from analyses.making import Check, codes
from analyses.tables import pick
from gradlens.analysis import Finding, Status

_SEEN = Check(
    code="GL001",
    analysis="audit",
    explanation=(
        "The lens saw every norm. A recording holds only what the lens saw: a normalization that never ran as a "
        "module, ran as a function, is of an unknown class, or whose gradient never arrived is missing from every "
        "table and figure. Each such gap is a warning that names the place and what to do, and so is all else that "
        "changes what the numbers mean, such as gradients that were read after clipping. It fails where norms were "
        "found and nothing at all was recorded of them. Norms whose input needs no gradient, as at the front of a "
        "model, are named and not blamed."
    ),
    threshold="nothing that normalizes stays unseen",
)
CODES = codes(_SEEN)
_LOOK = "Call lens.audit() after the first step: it names each norm and what keeps it from being seen."
#: What cannot be measured there, and is no fault: the list of the audit to what is said of its sites.
_INNOCENT = {
    "without_grad_input": "no gradient is needed at the input of {}: rescaling and kept are missing there.",
    "without_graph": "calls without a graph (torch.no_grad) have no gradient and are not recorded: {}.",
}


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding for each thing that was missed, of all recordings that missed it.

    Args:
        table: of ``audit.compute``.
    """
    if table.empty:
        return [_SEEN.finding("not applicable", "No recording holds the audit of its lens.")]
    blank = _blank(table)
    problems = pick(table, part="problem")
    absent = pick(table, part="absent")["label"].unique()
    sound = [label for label in table["label"].unique() if label not in {*blank, *problems["label"], *absent}]
    found = []
    if blank:
        claim = "nothing was recorded of any norm: none that was found has fired."
        found.append(_of(blank, table, "fail", claim, remedies=[_LOOK]))
    found += _problems(problems, table)
    found += _innocent(table)
    if sound:
        found.append(_of(sound, table, "pass", _said(sound, table)))
    if len(absent):
        found.append(_of(list(absent), table, "not applicable", "no audit of the lens was kept."))
    return found


def _blank(table: pd.DataFrame) -> list[str]:
    """Return the recordings whose model has norms, none of which left a row."""
    numbers = pick(table, part="norms").pivot(index="label", columns="question", values="value")
    numbers = numbers.reindex(columns=["found", "unseen", "fired", "as functions"]).fillna({"fired": float("nan")})
    recorded = numbers["fired"] + numbers["as functions"].fillna(0)
    there = numbers["found"].fillna(0) + numbers["unseen"].fillna(0)
    empty = set(numbers.index[(recorded == 0) & (there > 0)])
    return [label for label in table["label"].unique() if label in empty]


def _problems(problems: pd.DataFrame, table: pd.DataFrame) -> Iterator[Finding]:
    """Yield what the lens says: its first sentence tells what was missed, the rest why, or what to do."""
    told: dict[str, list[tuple[str, str]]] = {}
    for label, sentence in zip(problems["label"], problems["answer"], strict=True):
        claim, *rest = re.split(r"(?<=[.!?])\s+(?=[A-Z])", sentence, maxsplit=1)
        told.setdefault(claim, []).append((label, "".join(rest)))
    for claim, owners in told.items():
        labels = list(dict.fromkeys(label for label, _ in owners))
        rest = list(dict.fromkeys(re.sub("^They may ", "The norms named may ", text) for _, text in owners if text))
        remedies = [text for text in rest if " may " not in text or " try " in text]
        causes = [text for text in rest if text not in remedies]
        sites = _sites(claim, pick(table, part="missed", label=labels[0]))
        # A model may do without norms: its blocks and parameters are recorded all the same.
        trained = claim == NO_NORM and not (pick(table, label=labels[0])["kind"] == "init").any()
        status: Status = "not applicable" if trained else "warn"
        yield _of(labels, table, status, _small(claim), sites=sites, causes=causes, remedies=remedies)


def _sites(claim: str, missed: pd.DataFrame) -> tuple[str, ...]:
    """Return the sites that a sentence is about, which itself names only the first."""
    lists = [list(own["answer"]) for key, own in missed.groupby("question", sort=False) if key != "unsupported"]
    lists += [[site] for site in pick(missed, question="unsupported")["answer"]]
    said = [sites for sites in lists if re.search(rf"(?<!\S){re.escape(some(sites))}(?![\w/])", claim)]
    fullest = max(said, key=lambda sites: len(some(sites)), default=[])
    return tuple(fullest)


def _innocent(table: pd.DataFrame) -> Iterator[Finding]:
    """Yield what cannot be measured and is no fault, by list and sites."""
    missed = pick(table, part="missed")
    for key, sentence in _INNOCENT.items():
        owners: dict[tuple[str, ...], list[str]] = {}
        for label, own in pick(missed, question=key).groupby("label", sort=False):
            owners.setdefault(tuple(own["answer"]), []).append(str(label))
        for sites, labels in owners.items():
            yield _of(labels, table, "not applicable", sentence.format(some(sites)), sites=sites)


def _said(labels: Sequence[str], table: pd.DataFrame) -> str:
    """Say that nothing was missed, as far as the audits of that time could tell."""
    found = pick(table, part="norms", question="found")
    if (found.loc[found["label"].isin(labels), "value"] == 0).all():
        return "there is no norm, and none was missed."
    return "nothing was missed: every norm that was found has fired and was recorded."


def _of(labels: Sequence[str], table: pd.DataFrame, status: Status, claim: str, **lists: Sequence[str]) -> Finding:
    """Return a finding on some recordings, named together."""
    name = name_of(labels, table)
    more: dict[str, Any] = {key: tuple(texts) for key, texts in lists.items()}
    return _SEEN.finding(status, f"{name}: {claim}", name, details={"recordings": list(labels)}, **more)


def _small(sentence: str) -> str:
    """Begin a sentence small, for it stands behind a name; an abbreviation stays."""
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() else sentence
