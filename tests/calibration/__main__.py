"""Record each fault and each healthy set-up once, judge what is recorded, and write the table."""

import argparse
import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.calibration import report
from tests.calibration.faults import cases
from tests.calibration.judge import judge
from tests.calibration.recordings import everything, record

ROOT = Path(__file__).parents[2]


def digest() -> str:
    """Return what the judgement depends on: the analyses, and what is asked here."""
    folders = [ROOT / "analyses", ROOT / "gradlens" / "analysis", ROOT / "tests" / "calibration"]
    files = sorted(file for folder in folders for file in (*folder.rglob("*.py"), *folder.rglob("*.toml")))
    text = b"".join(file.read_bytes() for file in files if not file.name.startswith(("report", "__main__", "test_")))
    return hashlib.sha256(text).hexdigest()[:16]


class Judged:
    """What was said of each run, a line a run.

    Args:
        path: of the file; lines of other code are not read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.code = path, digest()
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
        self.lines = {line["name"]: line for line in lines if line["code"] == self.code}

    def add(self, line: dict[str, Any]) -> None:
        self.lines[line["name"]] = line
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"code": self.code}) + "\n")


def record_all(pool: Executor, names: Iterable[str], runs: Path) -> None:
    """Record what is missing."""
    runs.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not (runs / name).exists()]
    for number, (name, failed) in enumerate(
        zip(missing, pool.map(record, missing, [runs] * len(missing)), strict=True), 1
    ):
        what = f"not recorded: {name}\n{failed}" if failed else f"recorded: {name}"
        print(f"{number} of {len(missing)} {what}", flush=True)


def judge_all(pool: Executor, names: Iterable[str], runs: Path, judged: Judged) -> None:
    """Judge what is recorded and not judged by this code."""
    missing = [name for name in names if (runs / name).exists() and name not in judged.lines]
    for line in pool.map(judge, missing, [runs] * len(missing)):
        judged.add(line)


def told(line: dict[str, Any]) -> str:
    """Return what was said of a run, as a line to read."""
    right = {True: "right", False: "wrong"}
    facts = [
        line.get("outcome"),
        *(f"{what} {right[line[what]]}" for what in ("place", "step") if line.get(what) in right),
    ]
    loss = " -> ".join("nan" if value is None else f"{value:.3g}" for value in line["loss"])
    causes = "; ".join(_cause(cause) for cause in line["causes"])
    return f"{line['name']:70} {', '.join(filter(None, facts)):32} {causes or '-'}   (loss {loss})"


def _cause(cause: dict[str, Any]) -> str:
    since = "" if cause["step"] is None else f" @{cause['step']}"
    followed = f" [{' '.join(cause['symptoms'])}]" if cause["symptoms"] else ""
    return " ".join([f"{cause['code']} {cause['status']}{since}", *cause["places"][:1]]) + followed


def main() -> None:
    """Record what is missing, judge what is recorded, write the report; with --only print what was named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--set", default="own", choices=("own", "unseen"), help="networks that limits were set with, or not"
    )
    parser.add_argument("--only", default="", help="a regular expression searched in the names of runs; no report")
    parser.add_argument("--half", default="", choices=("development", "published"), help="faults of this half only")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--judge", action="store_true", help="record nothing: judge what is recorded")
    what.add_argument("--again", action="store_true", help="record anew")
    parser.add_argument("--jobs", type=int, default=2, help="processes that record")
    parser.add_argument("--list", action="store_true", help="print the names of the runs")
    parser.add_argument("--build", type=Path, default=ROOT / "build/calibration")
    parser.add_argument("--out", type=Path, default=ROOT / "reports/calibration")
    options = parser.parse_args()
    halves = {case.name: case.half for case in cases()}
    names = [
        name
        for name in everything(options.set)
        if re.search(options.only, name) and options.half in ("", halves.get(name, ""))
    ]
    if options.list:
        print("\n".join(names))
        return
    runs, some = options.build / "runs", bool(options.only or options.half)
    judged = Judged(options.build / "judged.jsonl")
    for name in names if options.again else ():
        shutil.rmtree(runs / name, ignore_errors=True)
        judged.lines.pop(name, None)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        if not options.judge:
            record_all(pool, names, runs)
        judge_all(pool, names, runs, judged)
    if not some:
        report.write([judged.lines[name] for name in names if name in judged.lines], options.out, options.set)
    for name in names if some else ():
        print(told(judged.lines[name]) if name in judged.lines else f"{name:70} not recorded", flush=True)


if __name__ == "__main__":
    main()
