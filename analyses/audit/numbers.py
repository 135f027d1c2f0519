"""What the lens saw of each recording, what it missed, and which gradients the numbers are of."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.audit.words import counts, lacking_processes, name_of, settings
from analyses.tables import ABSENT, identity, pick
from gradlens.recording import Recording

#: ``part``: ``norms`` (how far they were seen), ``setting``, ``problem`` (a sentence of the lens), ``missed`` (one site
#: a row, with the list of the audit that it stands in), or ``absent`` (no audit was kept).
COLUMNS = ("label", "variant", "kind", "part", "question", "value", "answer")
#: Keys of the audit that hold sites of which something is missing.
_MISSED = (
    "silent", "strangers", "transformed", "without_graph", "impossible", "hooked",
    "without_grad_output", "without_grad_input", "unsupported", "functional",
)  # fmt: skip
#: How the audit of a lens begins to tell of its own process.
_OWN = "Non-finite values, left out of all sums, first at"
#: What has a finding of its own, GL307 and GL706, in recordings whose setting has the key, and how it is told here.
_TOLD_ELSEWHERE = {"nonfinite": _OWN, "older": "Gradients that were there when step"}
_SEEN = (
    "How far the norms were seen. Found: modules that normalize, or are called norms; armed: with hooks; fired: ran in "
    "a recorded step; output and input reached: a gradient arrived there; calls: of one norm in the first recorded "
    "step; unseen: places where a normalization ran as a function and was not recorded (as functions: where it was)."
)
_DEPENDS = "What the numbers depend on, and which gradients they are of; where no recording is named, of all."
#: The lens' first sentence where there is none.
NO_NORM = "No normalization was found."


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return one row a recording and question; no row at all where no recording holds an audit.

    Args:
        recordings: of any kind.
    """
    rows = [row for recording in recordings for row in _rows(recording)]
    if all(row["part"] == "absent" for row in rows):
        rows = []
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    texts = [column for column in COLUMNS if column != "value"]
    return table.astype({"value": float} | dict.fromkeys(texts, object)).fillna(dict.fromkeys(texts, ""))


def _rows(recording: Recording) -> Iterator[dict[str, Any]]:
    audit, kind = recording.meta.get("audit"), str(recording.meta.get("kind") or "")
    who = {name: text for name, text in identity(recording).items() if name != "schedule"} | {"kind": kind}
    yield from ({**who, "part": "problem", "answer": str(sentence)} for sentence in recording.meta.get("damage") or ())
    if not isinstance(audit, Mapping) or not audit:
        yield {**who, "part": "absent"}
        return
    for question, number, words in counts(audit, _functions(recording, audit)):
        yield {**who, "part": "norms", "question": question, "value": number, "answer": words}
    for question, answer in settings(audit, kind):
        yield {**who, "part": "setting", "question": question, "answer": answer}
    if thinned := recording.meta.get("thinned"):
        answer = f"of the steps before {thinned['before']:,} the first in each {thinned['span']:,}, and around events"
        yield {**who, "part": "setting", "question": "kept", "answer": answer}
    without = (recording.meta.get("model") or {}).get("norm") == "none"
    problems, anywhere = list(audit.get("problems") or ()), _first_broken(recording)
    if anywhere:
        problems = [*(sentence for sentence in problems if not str(sentence).startswith(_OWN)), anywhere]
    if kind != "init":
        told = tuple(text for key, text in _TOLD_ELSEWHERE.items() if key in (audit.get("setting") or {}))
        problems = [sentence for sentence in problems if not str(sentence).startswith(told)]
    problems.append(lacking_processes(recording.meta.get("processes") or {}))
    for sentence in filter(None, map(str, problems)):
        if not (without and sentence.startswith(NO_NORM)):
            yield {**who, "part": "problem", "answer": sentence}
    broken = set(recording.norms.loc[recording.norms["nonfinite"] > 0, "site"])
    for key in _MISSED:
        for site in audit.get(key) or ():
            if key == "without_grad_input" and site in broken:
                continue  # a gradient came and was no number, which a problem tells: it was needed
            yield {**who, "part": "missed", "question": key, "answer": str(site)}


def _functions(recording: Recording, audit: Mapping[str, Any]) -> int:
    """Return how many normalizations were recorded that no module is."""
    sites = recording.sites
    return len(set(sites.loc[sites["kind"] == "norm", "site"]) - set(audit["norms"])) if "norms" in audit else 0


def _first_broken(recording: Recording) -> str:
    """Say where and in which of several processes something was not finite first; empty where all was finite.

    A lens knows of its own process alone. First in time, of one step outputs before gradients, of outputs the first in
    forward order, of gradients the first in backward order; modules are taken to run in the order in which they were
    registered.
    """
    inputs, norms = recording.activations, recording.norms
    if inputs["rank"].nunique() < 2:
        return ""
    outputs = inputs[inputs["absmax"].isna() & (inputs["numel"] > 0)]
    gradients = norms[norms["nonfinite"] > 0]
    # A gradient behind an output that is none is none either.
    there = pd.MultiIndex.from_frame(outputs[["step", "rank"]])
    gradients = gradients[~pd.MultiIndex.from_frame(gradients[["step", "rank"]]).isin(there)]
    place = _places(recording.sites)
    found = [
        (step, 0, place[site][tensor], f"the {tensor} of {site}, in the forward pass", rank)
        for step, rank, site, tensor in _columns(outputs, "step", "rank", "site", "tensor")
    ] + [
        (step, 1, -place[site]["input"], f"the gradient at {site}, in the backward pass", rank)
        for step, rank, site in _columns(gradients, "step", "rank", "site")
    ]
    if not found:
        return ""
    step, _, _, where, rank = min(found)
    return f"{_OWN} {where}, step {step}, process {rank}."


def _columns(table: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[column] for column in columns), strict=True)


def _places(sites: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return where the input and the output of each site stand in the forward pass: an output is behind all inside."""
    order = dict(zip(sites["site"], sites["order"], strict=True))
    return {
        path: {"input": own, "output": 0.5 + max(n for other, n in order.items() if f"{other}.".startswith(f"{path}."))}
        for path, own in order.items()
    }


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the table as two small ones, in which recordings that say the same share a row.

    Args:
        table: of ``compute``.
    """
    shown = {_SEEN: _norms(table), _DEPENDS: _settings(table)}
    return {caption: rows for caption, rows in shown.items() if not rows.empty}


def _norms(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row a group of recordings with the same counts."""
    part = pick(table, part="norms")
    wide = part.pivot(index="label", columns="question", values="answer").reindex(part["label"].unique())
    recorded = (wide["as functions"] > "0").any() if "as functions" in wide else False
    wide = wide[[q for q in part["question"].unique() if q != "as functions" or recorded]]
    rows = []
    for cells, same in wide.fillna(ABSENT).groupby(list(wide.columns), sort=False) if len(wide) else ():
        rows.append({"recordings": name_of(list(same.index), table), **dict(zip(wide.columns, cells, strict=True))})
    found = pd.DataFrame(rows)
    counted = [name for name in found if name != "recordings" and found[name].str.fullmatch("[0-9]+").all()]
    return found.astype(dict.fromkeys(counted, float))  # printed flush right


def _settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row a question and answer, with whose answer it is where they differ."""
    part = pick(table, part="setting")
    rows = []
    for question, own in part.groupby("question", sort=False):
        for answer, labels in own.groupby("answer", sort=False)["label"].agg(list).items():
            whose = name_of(labels, table) if len(labels) < table["label"].nunique() else ""
            rows.append({"setting": question, "value": answer, "recordings": whose})
    found = pd.DataFrame(rows)
    return found if found.empty or found["recordings"].any() else found.drop(columns="recordings")
