"""Record each fault and each healthy set-up once, judge what is recorded, and write the table."""

import argparse
import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
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
    text = b"".join(file.read_bytes() for file in files if file.name not in ("report.py", "__main__.py"))
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


def record_all(names: Iterable[str], runs: Path, jobs: int) -> None:
    """Record what is missing, in processes of their own."""
    runs.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not (runs / name).exists()]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for name, failed in zip(missing, pool.map(record, missing, [runs] * len(missing)), strict=True):
            print(f"not recorded: {name}\n{failed}" if failed else f"recorded: {name}", flush=True)


def told(line: dict[str, Any]) -> str:
    """Return what was said of a run, as a line to read."""
    right = {True: "right", False: "wrong"}
    facts = [
        line.get("outcome"),
        *(f"{what} {right[line[what]]}" for what in ("place", "step") if line.get(what) in right),
    ]
    loss = " -> ".join(f"{value:.3g}" for value in line["loss"])
    causes = "; ".join(_cause(cause) for cause in line["causes"])
    return f"{line['name']:70} {', '.join(filter(None, facts)):32} {causes or '-'}   (loss {loss})"


def _cause(cause: dict[str, Any]) -> str:
    since = "" if cause["step"] is None else f" @{cause['step']}"
    followed = f" [{' '.join(cause['symptoms'])}]" if cause["symptoms"] else ""
    return " ".join([f"{cause['code']} {cause['status']}{since}", *cause["places"][:1]]) + followed


def main() -> None:
    """Record what is missing, judge what is recorded, write the report; with --only print what was named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a regular expression searched in the names of runs; no report")
    parser.add_argument("--half", default="", choices=("development", "published"), help="faults of this half only")
    parser.add_argument("--judge", action="store_true", help="record nothing: judge what is recorded")
    parser.add_argument("--again", action="store_true", help="record anew")
    parser.add_argument("--jobs", type=int, default=2, help="processes that record")
    parser.add_argument("--list", action="store_true", help="print the names of the runs")
    parser.add_argument("--build", type=Path, default=ROOT / "build/calibration")
    parser.add_argument("--out", type=Path, default=ROOT / "reports/calibration")
    options = parser.parse_args()
    halves = {case.name: case.half for case in cases()}
    names = [
        name for name in everything() if re.search(options.only, name) and options.half in ("", halves.get(name, ""))
    ]
    if options.list:
        print("\n".join(names))
        return
    runs = options.build / "runs"
    if options.again:
        for name in names:
            shutil.rmtree(runs / name, ignore_errors=True)
    if not options.judge:
        record_all(names, runs, options.jobs)
    judged = Judged(options.build / "judged.jsonl")
    for name in names:
        if (runs / name).exists():
            if name not in judged.lines or options.again:
                judged.add(judge(name, runs))
            if options.only or options.half:
                print(told(judged.lines[name]), flush=True)
        elif options.only or options.half:
            print(f"{name:70} not recorded")
    if not options.only and not options.half:
        report.write([judged.lines[name] for name in names if name in judged.lines], options.out)


if __name__ == "__main__":
    main()
