"""What a kill takes from a run that is being compacted: nothing that was acknowledged.

    python -m tests.kill_recordings --kills 100

Each run is a process of its own that writes steps as fast as it can, and says so of each one that is written. Chunks
and row groups are small, so that it compacts all the time. It is killed at a random moment after that has begun; what
is on disk is read, gone on with, closed, and read again.
"""

import argparse
import random
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.killing import killed, launched

#: What is killed.
WRITE = """
    import os, sys
    from pathlib import Path
    import numpy as np
    from gradlens.recording import RunWriter, compaction
    from tests.recording.folders import begin, meta, record

    compaction._CHUNK, compaction._GROUP = 10_000, 16

    def write(folder):
        writer, numbers = RunWriter(Path(folder), meta("run")), np.random.default_rng(0)
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
        lost: those of them that are not read afterwards.
        compacting: whether a Parquet file was there that was not finished.
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

    def compacts() -> bool:
        return any((folder / "segments").glob("*.part"))

    acknowledged = killed(launcher, folder, random.Random(seed).uniform(0.0, 0.4), compacts)
    compacting = compacts()
    recording = load(folder)
    tables = (recording.steps, recording.norms, recording.params, recording.activations)
    lost = max(len({*acknowledged} - {*table["step"]}) for table in tables)
    again, last = RunWriter(folder, meta("run")), recording.last_step
    record(again, last + 1, np.random.default_rng(1))
    again.close("complete")
    after = load(folder)
    whole = after.norms[after.norms["step"] <= last].reset_index(drop=True).equals(recording.norms)
    gone_on = whole and after.steps["step"].tolist() == [*range(last + 2)]
    return Found(len(acknowledged), lost, compacting, gone_on)


def main() -> None:
    """Run and print; leave with 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as held, launched(WRITE) as launcher:
        found = [kill_once(launcher, Path(held) / f"run{kill}", seed=kill) for kill in range(asked.kills)]
    lost, broken = sum(one.lost for one in found), sum(not one.gone_on for one in found)
    print(
        f"{len(found)} kills, {sum(one.compacting for one in found)} of them with unfinished Parquet files: "
        f"{sum(one.acknowledged for one in found):,} steps acknowledged, {lost} lost; "
        f"{len(found) - broken} runs gone on with and closed, {broken} not"
    )
    raise SystemExit(1 if lost or broken else 0)


if __name__ == "__main__":
    main()
