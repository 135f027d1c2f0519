"""Writes what came of the table: a page to read, and JSON."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

OUTCOMES = ("right", "named", "refused", "wrong", "crash", "silent")
Line = dict[str, Any]


def write(lines: list[Line], folder: Path, before: Path) -> None:
    """Write README.md and results.json; with the outcomes of an earlier recogniser, where the file is there."""
    if before.exists():
        earlier = {(package, name): outcome for package, name, outcome in json.loads(before.read_text("utf-8"))}
        lines = [{**line, "before": earlier.get((line["package"], line["name"]), "")} for line in lines]
    # Where a package lies on the machine that measured is nobody's concern.
    lines = [{**line, "said": re.sub(r"/[^\s'\"]*site-packages[^\s'\"]*", "...", line["said"])} for line in lines]
    lines = sorted(lines, key=lambda line: (line["package"], line["name"]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(document(lines), indent=1) + "\n", encoding="utf-8")
    text = page(lines)
    (folder / "README.md").write_text(text, encoding="utf-8")
    print("\n" + text.split("\n## ")[1])


def document(lines: list[Line]) -> dict[str, Any]:
    """Return everything that was measured, and the counts."""
    counts = {what: _counts(own) for what, own in _parts(lines).items()}
    return {**counts, "measured": [{key: value for key, value in line.items() if key != "code"} for line in lines]}


def _parts(lines: list[Line]) -> dict[str, list[Line]]:
    classes = [line for line in lines if line["package"] != "families"]
    return {
        "classes": classes,
        "plain": [line for line in classes if line.get("norm") and line.get("plain")],
        "families": [line for line in lines if line["package"] == "families"],
    }


def _counts(lines: list[Line], which: str = "outcome") -> dict[str, int]:
    found = Counter(line.get(which) for line in lines)
    return {outcome: found[outcome] for outcome in (*OUTCOMES, "not built")}


def page(lines: list[Line]) -> str:
    """Return the report as Markdown."""
    parts = _parts(lines)
    plain = _counts(parts["plain"])
    share = plain["right"] / max(1, sum(plain[outcome] for outcome in OUTCOMES))
    norms = {line["name"].split(" (")[0] for line in parts["classes"] if line.get("norm")}
    packages = dict.fromkeys(line["package"] for line in parts["classes"])
    rows = [
        ["all classes", _counts(parts["classes"])],
        ["before", _counts(parts["classes"], "before")],
        ["plain norms", plain],
        ["before", _counts(parts["plain"], "before")],
        ["families of transformers", _counts(parts["families"])],
    ]
    text = [
        _HEAD,
        "## Counts\n",
        _table(["", *OUTCOMES, "not built"], [[what, *map(str, counts.values())] for what, counts in rows]),
        f"\n{len(norms)} norm classes of {len(packages)} packages, some built in several ways, and some that are none. "
        f"Of the plain norms {100 * share:.0f} % are recorded, every number right.\n",
        "## Classes\n",
    ]
    for package in packages:
        own = [line for line in parts["classes"] if line["package"] == package]
        number = next((line["version"] for line in own if line.get("version")), "")
        head = ["class", "is", "before", "outcome", "registered", "said"]
        text += [f"### {package} {number}".rstrip() + "\n", _table(head, [_row(line) for line in own]), ""]
    return "\n".join(text + _families(parts["families"])) + "\n"


def _families(lines: list[Line]) -> list[str]:
    """Return the chapter of the families of transformers."""
    built = [line for line in lines if line["outcome"] != "not built"]
    right = ", ".join(line["name"] for line in built if line["outcome"] == "right")
    others = [_family(line) for line in built if line["outcome"] != "right"]
    return [
        "## Families of transformers\n",
        f"{len(built)} families are built and run, with {sum(line['sites'] for line in built)} norms. "
        f"Right in every number: {right}.\n",
        _table(["family", "outcome", "norms", "not right", "said"], others),
        "\nNot built, or not run, by the general rules of `tests/norms_table/small.py` and `inputs.py`:\n",
        _table(["family", "why"], [[line["name"], _short(line["said"])] for line in lines if line not in built]),
    ]


def _row(line: Line) -> list[str]:
    is_what = "a plain norm" if line.get("plain") and line.get("norm") else "a norm" if line.get("norm") else "no norm"
    return [
        f"`{line['name']}`",
        is_what if "norm" in line else "",
        line.get("before", ""),
        line["outcome"],
        line.get("told", ""),
        _short(line["said"]),
    ]


def _family(line: Line) -> list[str]:
    others = line.get("others", {})
    some = ", ".join(f"`{path}`" for path in list(others)[:3]) + (
        f" and {len(others) - 3} more" if len(others) > 3 else ""
    )
    said = next((verdict[1] for verdict in others.values() if verdict[0] == line["outcome"]), line["said"])
    return [line["name"], line["outcome"], str(line.get("sites", 0)), some, _short(said)]


def _short(text: str, most: int = 160) -> str:
    text = text.replace("|", "/").replace("\n", " ")
    return text if len(text) <= most else text[: most - 3] + "..."


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_HEAD = """# Does gradlens read my norm rightly?

    make norms-environment norms

with the versions of `constraints.txt` and `tests/norms_table/requirements.txt` in a virtual environment; what was
measured is kept in `reports/build/norms`, and only what is missing is measured again. On one core the classes take some
minutes, the families of transformers an hour.

Each class is built small, with gains and biases drawn from 0.3 to 1.7, put between two linear maps in a model that also
holds a LayerNorm, and recorded for two steps under `gradlens.attach(model)`. Its formula is written by hand in
`tests/norms_table/packages`, and must itself reproduce the class's output and autograd's gradient. What a row says
(recentering, rescaling, kept to 1e-4; inv_sigma, grad_output_norm, grad_input_norm to 0.1 %) is compared with that
formula in float64.

| outcome | means |
|---|---|
| right | every number of the row is right; for what is no norm, that nothing is said of it |
| named | no shares, and `print(lens.audit())` names the place and why |
| refused | attaching raises a GradlensError |
| wrong | a row with a wrong number, or a module named or recorded as a norm that is none |
| crash | an exception that the model alone does not raise, or gradients that differ from those without the lens |
| silent | neither a row nor a word |

"Is": a plain norm gives scale * normalized + shift of its first argument; a norm does something else besides, or is
called with more. "Before": with the recogniser that gradlens had before this table was made. "Registered": what comes
of a plain norm that is only named, once its axes are told to `gradlens.register_norm` as the audit advises. Where a
class holds one of torch's norms, it is that norm's row that is compared ("the norm in it").
"""
