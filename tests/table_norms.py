"""Which norms of other packages, and of which families of transformers, the lens reads rightly. Run: ``make norms``.

Every class is put into a small model, every family is built small; one pass is recorded as a user would, and each
number of a row is compared with float64 autograd (``tests.norms_table``). What was measured is kept, a JSON line an
entry, so that a run goes on where it was stopped; a change of gradlens, or of the table's code, measures anew.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.norms_table import report

ROOT = Path(__file__).parent.parent
#: Entries that one process measures: one that is killed loses no more.
AT_ONCE = 40


def digest() -> str:
    """Return what the results depend on: the code that recognises and measures, and the table's own."""
    folders = [ROOT / "gradlens" / "lens", ROOT / "gradlens" / "recognition", ROOT / "tests" / "norms_table"]
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    # How a family is made small does not change what came of those that were built.
    text = b"".join(file.read_bytes() for file in files if file.name not in ("report.py", "small.py", "inputs.py"))
    return hashlib.sha256(text).hexdigest()[:16]


class Kept:
    """What was measured, a line an entry.

    Args:
        path: of the file.
        of: the digest of the code; lines of other code are left alone and not read.
    """

    def __init__(self, path: Path, of: str) -> None:
        self.path, self.of = path, of
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
        self.lines = {(line["package"], line["name"]): line for line in lines if line["code"] == of}

    def add(self, lines: Iterable[str]) -> None:
        """Keep the lines that a process has printed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for text in lines:
                if text.startswith("{"):
                    line = {**json.loads(text), "code": self.of}
                    self.lines[line["package"], line["name"]] = line
                    file.write(json.dumps(line) + "\n")


def run(kept: Kept, package: str, names: list[str], seconds: float) -> None:
    """Measure entries of a package in a process of their own; what ends the process is one entry's outcome."""
    left = [name for name in names if (package, name) not in kept.lines]
    while left:
        some, left = left[:AT_ONCE], left[AT_ONCE:]
        command = [sys.executable, "-m", "tests.norms_table.worker", package, *some]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as child:
            assert child.stdout is not None
            done = set()
            for line in child.stdout:
                kept.add([line])
                done |= {json.loads(line)["name"]} if line.startswith("{") else set()
        missing = [name for name in some if name not in done]
        if missing:  # the first of them ended the process, the others have not been tried
            ended = f"the process ended with {child.returncode}"
            kept.add([json.dumps({"package": package, "name": missing[0], "outcome": "not built", "said": ended})])
            left = missing[1:] + left
        print(".", end="", flush=True)


def main() -> None:
    """Measure what is missing, print the counts, write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, default=ROOT / "reports/build/norms/measured.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT / "reports/norms")
    parser.add_argument(
        "--only", choices=("classes", "families"), help="measure these only; the report has what is kept"
    )
    parser.add_argument("--again", action="store_true", help="measure anew what was not built")
    parser.add_argument(
        "--before", type=Path, default=ROOT / "reports/norms/before.json", help="outcomes to compare with"
    )
    options = parser.parse_args()
    kept = Kept(options.measured, digest())
    if options.again:
        kept.lines = {key: line for key, line in kept.lines.items() if line["outcome"] != "not built"}
    listed = json.loads(
        subprocess.run(
            [sys.executable, "-m", "tests.norms_table.worker"], capture_output=True, text=True, cwd=ROOT, check=True
        ).stdout.splitlines()[-1]
    )
    families = listed.pop("families")
    for package, names in listed.items() if options.only != "families" else ():
        run(kept, package, names, 60)
    if options.only != "classes":
        run(kept, "families", families, 60)
    wanted = {(package, name) for package, names in {**listed, "families": families}.items() for name in names}
    report.write([line for key, line in kept.lines.items() if key in wanted], options.out, options.before)


if __name__ == "__main__":
    main()
