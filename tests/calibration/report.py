"""The table of what is named: a page to read, and JSON."""

import json
from pathlib import Path
from typing import Any

from tests.calibration.faults import KINDS
from tests.calibration.recordings import HEALTHY_IS
from tests.calibration.unseen.case import UNSEEN_IS
from tests.calibration.unseen.networks import UNSEEN

Line = dict[str, Any]
#: Of each set, the halves that are published as JSON, the first also as a table; and what the two are called.
SETS = {
    "own": (("published", "development"), "table", "results.json"),
    "unseen": (("unseen",), "unseen", "unseen.json"),
}
HEAD = ("kind of fault", "code", "runs", "right first", "first three", "generic", "other", "silent", "place", "step")
#: What is aimed at, in per cent.
AIMS = {"right first": ">= 80", "first three": ">= 92", "silent": "<= 5", "place": ">= 90", "step": ">= 90"}


def write(lines: list[Line], folder: Path, of: str = "own") -> None:
    """Write the JSON of a set, and its tables into README.md between its markers."""
    folder.mkdir(parents=True, exist_ok=True)
    halves, mark, file = SETS[of]
    lines = sorted(lines, key=lambda line: line["name"])
    document: dict[str, Any] = {"aims": AIMS} | {half: totals(lines, half) for half in halves}
    head = json.dumps(document | {"healthy": healthy(lines)}, indent=1).removesuffix("\n}")
    runs = ",\n  ".join(json.dumps(_kept(line)) for line in lines)
    (folder / file).write_text(f'{head},\n "runs": [\n  {runs}\n ]\n}}\n', encoding="utf-8")
    readme, begin, end = folder / "README.md", f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    before, _, rest = (readme.read_text("utf-8") if readme.exists() else "").partition(begin)
    _, _, after = rest.partition(end)
    readme.write_text(f"{before}{begin}\n{page(lines, halves[0])}\n{end}{after}", encoding="utf-8")
    print(page(lines, halves[0]))


def _kept(line: Line) -> Line:
    """Return what is published of a run: all but the claims."""
    causes = [{key: value for key, value in cause.items() if key != "claim"} for cause in line["causes"]]
    return {key: value for key, value in line.items() if key != "code"} | {"causes": causes}


def _of_half(lines: list[Line], half: str) -> list[Line]:
    return [line for line in lines if line.get("half") == half]


def counts(lines: list[Line]) -> dict[str, Any]:
    """Return how many of some runs are named how; ``first three`` holds those that are right first."""
    outcomes = [line["outcome"] for line in lines]
    first = outcomes.count("first")
    found: dict[str, Any] = {"runs": len(lines), "right first": first}
    found["first three"] = first + outcomes.count("first three")
    found |= {name: outcomes.count(name) for name in ("generic", "other", "silent")}
    for name in ("place", "step"):
        own = [line[name] for line in lines if line[name] is not None]
        found[name] = [sum(own), len(own)]
    return found


def totals(lines: list[Line], half: str) -> dict[str, Any]:
    """Return the counts of a half, and the share of its runs in which a classic threshold is crossed."""
    own = _of_half(lines, half)
    return counts(own) | {"classic thresholds": _crossed(own)}


def _crossed(lines: list[Line]) -> dict[str, int]:
    each = {name: sum(name in line["classic"] for line in lines) for name in ("vanished", "ratio", "spike")}
    return each | {"any": sum(bool(line["classic"]) for line in lines)}


def healthy(lines: list[Line]) -> dict[str, Any]:
    """Return what is said of the healthy runs."""
    own = [line for line in lines if line["name"].startswith(HEALTHY_IS)]
    alarms = {
        line["name"].removeprefix(HEALTHY_IS).removeprefix(UNSEEN_IS): sorted(
            f"{c['code']} {c['status']}" for c in line["causes"]
        )
        for line in own
        if line["causes"]
    }
    failed = sum(any(cause["status"] == "fail" for cause in line["causes"]) for line in own)
    warned = len(alarms) - failed
    return {"runs": len(own), "fail": failed, "warn": warned, "which": alarms, "classic thresholds": _crossed(own)}


def page(lines: list[Line], half: str = "published") -> str:
    """Return the tables as Markdown; a row is a kind of fault, or of the unseen ones a network."""
    own, well = _of_half(lines, half), healthy(lines)
    if half == "unseen":
        what, head = "network", ("network", "optimizer", *HEAD[2:])
        told = {name: network.optimizer for name, network in UNSEEN.items()}
    else:
        what, head = "kind", HEAD
        told = {name: " ".join(kind.codes) for name, kind in KINDS.items()}
    rows = [_row(name, beside, [line for line in own if line[what] == name]) for name, beside in told.items()]
    total = _row("**all**", "", own)
    share = ["per cent", "", "", *_shares(counts(own))]
    aims = ["aim", "", "", *(AIMS.get(name, "") for name in HEAD[3:])]
    text = [_table([list(head), *(row for row in rows if row[2] != "0"), total, share, aims])]
    said = "; ".join(f"{name}: {', '.join(codes)}" for name, codes in well["which"].items())
    text.append(
        f"\nHealthy: {well['runs']} set-ups, {well['fail']} fail (aim 0), {well['warn']} warn (aim at most "
        f"{well['runs'] // 20}){f': {said}' if said else ''}.\n"
    )
    first = ["runs in which a classic threshold is crossed", "runs", "any", "vanished", "ratio", "spike"]
    crossed = (("faults", len(own), _crossed(own)), ("healthy", well["runs"], well["classic thresholds"]))
    text.append(_table([first, *([what, str(n), *(str(c[k]) for k in first[2:])] for what, n, c in crossed)]))
    return "\n".join(text)


def _row(name: str, codes: str, lines: list[Line]) -> list[str]:
    found = counts(lines)
    cells = [str(found[column]) for column in HEAD[2:8]]
    return [name, codes, *cells, *(_of(found[column]) for column in ("place", "step"))]


def _of(pair: list[int]) -> str:
    return f"{pair[0]} of {pair[1]}" if pair[1] else ""


def _shares(found: dict[str, Any]) -> list[str]:
    pairs = [(found[column], found["runs"]) for column in HEAD[3:8]] + [found["place"], found["step"]]
    return [f"{100 * some / of:.0f}" if of else "" for some, of in pairs]


def _table(rows: list[list[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
