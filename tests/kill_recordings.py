"""What a kill takes from a run that is being compacted, or thinned: nothing that was acknowledged and is to stay.

    python -m tests.kill_recordings --kills 100

Each run is a process of its own that writes steps as fast as it can, and says so of each one that is written. Chunks
and row groups are small, or so little stays whole, that it compacts or thins all the time. It is killed at a random
moment after that has begun; what is on disk is read, gone on with, closed, and read again.
"""

import argparse
import random
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradlens.recording.folder import segments
from gradlens.recording.thinned import Thinned, counts
from tests.killing import killed, launched

#: Steps that stay whole, in what is killed.
WHOLE = 20
#: What is killed.
WRITE = """
    import os, sys
    from pathlib import Path
    import numpy as np
    from gradlens.recording import RunWriter, compaction, thinned, thinning
    from tests.recording.folders import begin, meta, record

    compaction._CHUNK, compaction._GROUP = 10_000, 16
    thinned.WHOLE = thinning.WHOLE = 20
    thinned.SPANS = 40

    def write(folder):
        kept = {"keep": "thinned"} if "thinned" in folder else {}
        writer, numbers = RunWriter(Path(folder), meta("run") | kept), np.random.default_rng(0)
        begin(writer)
        acknowledged = os.open(folder + ".ack", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for step in range(10**6):
            record(writer, step, numbers)
            os.write(acknowledged, b"%d\\n" % step)
"""


@dataclass(frozen=True)
class Found:
    """What a kill left.

    Attributes:
        acknowledged: steps that were written before it.
        lost: those of them that are to stay, and are not read afterwards.
        compacting: whether a file was there that was not finished, or not yet removed.
        gone_on: whether the run could be gone on with and closed, and all of it was there then.
    """

    acknowledged: int
    lost: int
    compacting: bool
    gone_on: bool


def kill_once(launcher: "subprocess.Popen[str]", folder: Path, seed: int) -> Found:
    """Let a run be written, kill it, and see what is left."""
    from gradlens import load
    from gradlens.recording import RunWriter
    from tests.recording.folders import meta, record

    acknowledged = killed(launcher, folder, random.Random(seed).uniform(0.0, 0.4), lambda: _began(folder))
    compacting = _unfinished(folder)
    recording = load(folder)
    tables = (recording.steps, recording.norms, recording.params, recording.activations)
    stay = _promised(np.array(acknowledged), recording.meta.get("thinned"))
    lost = max(len(stay - {*table["step"]}) for table in tables) + len(recording.meta.get("damage", ()))
    again, last = RunWriter(folder, meta("run")), recording.last_step
    record(again, last + 1, np.random.default_rng(1))
    again.close("complete")
    after = load(folder)
    whole = after.norms[after.norms["step"] <= last].reset_index(drop=True).equals(recording.norms)
    gone_on = whole and after.steps["step"].tolist() == [*recording.steps["step"], last + 1]
    return Found(len(acknowledged), lost, compacting, gone_on)


def _began(folder: Path) -> bool:
    return any((folder / "segments").glob("*.part")) or any((folder / "segments").glob("thinned-*.json"))


def _unfinished(folder: Path) -> bool:
    thinned = Thinned.read(folder, 0)
    return any((folder / "segments").glob("*.part")) or not all(counts(name, thinned) for name in segments(folder))


def _promised(steps: np.ndarray, told: Mapping[str, int] | None) -> set[int]:
    """Return those of the steps that are to stay, by what the recording says of its thinning."""
    if not told:
        return {*steps.tolist()}
    assert (steps >= told["before"]).sum() >= WHOLE
    old = steps[steps < told["before"]]
    firsts = [*range(32), *(np.unique(old // told["span"]) * told["span"])]
    return {*steps[steps >= told["before"]].tolist(), *map(int, firsts)}


def main() -> None:
    """Run and print; leave with 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    asked = parser.parse_args()
    failed = False
    for kind in ("compacted", "thinned"):
        with tempfile.TemporaryDirectory() as held, launched(WRITE) as launcher:
            found = [kill_once(launcher, Path(held) / f"{kind}{n}", seed=n) for n in range(asked.kills // 2)]
        lost, broken = sum(one.lost for one in found), sum(not one.gone_on for one in found)
        failed = failed or lost + broken > 0
        print(
            f"{len(found)} kills of runs that are {kind}, {sum(one.compacting for one in found)} of them with "
            f"unfinished files: {sum(one.acknowledged for one in found):,} steps acknowledged, {lost} lost; "
            f"{len(found) - broken} runs gone on with and closed, {broken} not"
        )
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
