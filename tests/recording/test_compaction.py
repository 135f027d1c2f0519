"""Compaction while a run is written: what it leaves is what closing alone would have left, come what may."""

import shutil
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from gradlens import load
from gradlens.recording import RunWriter, closing, compaction
from gradlens.recording.schema import PUBLIC
from tests.kill_recordings import WRITE, kill_once
from tests.killing import launched
from tests.recording.folders import begin, meta, probe, record

STEPS = 60


@pytest.fixture
def eager(monkeypatch):
    """Compact after every few steps, in small row groups."""
    monkeypatch.setattr(compaction, "_CHUNK", 20_000)
    monkeypatch.setattr(compaction, "_GROUP", 16)


def written(folder, *, back_at=None, again_at=None, uncounted=False, twice=False):
    """Write a run and close it; return its writer's folder."""
    writer, numbers = RunWriter(folder, meta("run")), np.random.default_rng(0)
    begin(writer)
    for step in range(STEPS):
        if step == again_at:  # the attempt ended in the middle of a step, and five later than the next one begins
            for further in range(step, step + 5):
                record(writer, further, numbers, counted=further < step + 4)
            writer.close("interrupted")
            writer = RunWriter(folder, meta("run"))
            begin(writer)
        if step == back_at:
            writer.go_back()
            begin(writer)
        record(writer, step, numbers)
        if twice and step % 7 == 0:  # a second row of the same keys, before the step is counted
            record(writer, step + 1, numbers, counted=False)
        probe(writer, step)
        time.sleep(0.001)
    if uncounted:
        record(writer, STEPS, numbers, counted=False)
    writer.close("complete")
    return folder


def tables(folder):
    recording = load(folder)
    return {name: recording.table(name) for name in PUBLIC}


@pytest.mark.parametrize("case", [{}, {"back_at": 30}, {"again_at": 30}, {"uncounted": True}, {"twice": True}], ids=str)
def test_a_run_that_was_compacted_while_written_is_the_same(case, tmp_path, request):
    plain = written(tmp_path / "plain", **case)
    request.getfixturevalue("eager")
    folder = written(tmp_path / "run", **case)
    assert all(frame.equals(tables(folder)[name]) for name, frame in tables(plain).items())
    assert len(tables(folder)["steps"]) == STEPS
    for path in plain.glob("*.parquet"):
        assert pq.read_schema(path).equals(pq.read_schema(folder / path.name))
        assert pd.read_parquet(path).equals(pd.read_parquet(folder / path.name))
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in plain.iterdir())


def test_most_of_it_is_there_before_the_run_is_closed(tmp_path, eager):
    writer, numbers = RunWriter(tmp_path / "run", meta("run")), np.random.default_rng(0)
    begin(writer)
    for step in range(STEPS):
        record(writer, step, numbers)
        time.sleep(0.002)
    parts = tmp_path / "run" / "segments" / "norms.part"
    assert parts.stat().st_size > 4  # more than Parquet's first bytes
    assert len(load(tmp_path / "run").steps) == STEPS
    writer.close("complete")
    assert pq.ParquetFile(tmp_path / "run" / "norms.parquet").num_row_groups > 1
    assert not parts.exists()


def test_of_a_resumed_run_most_is_there_too_with_what_earlier_attempts_wrote(tmp_path, eager):
    for first in (0, STEPS, 2 * STEPS - 5):
        writer, numbers = RunWriter(tmp_path / "run", meta("run")), np.random.default_rng(0)
        begin(writer)
        for step in range(first, first + STEPS):
            record(writer, step, numbers)
            time.sleep(0.002)
        writer.close("interrupted" if first < 2 * STEPS - 5 else "running")
    writer = RunWriter(tmp_path / "run", meta("run"))
    for step in range(3 * STEPS - 5, 4 * STEPS):
        record(writer, step, numbers)
        time.sleep(0.002)
    rows = 3 * (3 * STEPS - 5)  # of earlier attempts
    writer._compaction._thread.join()
    writer._compaction._files["norms"].close()
    assert pq.ParquetFile(tmp_path / "run" / "segments" / "norms.part").metadata.num_rows > rows


def test_a_large_run_that_was_killed_is_closed_piece_by_piece_to_the_same_files(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    writer, numbers = RunWriter(folder, meta("run")), np.random.default_rng(0)
    begin(writer)
    for step in range(STEPS):
        record(writer, step, numbers)
    writer.close("interrupted")
    RunWriter(folder, meta("run")).annotate({"status": "complete"})
    for name, many in (("whole", closing._MANY), ("pieces", 0)):
        shutil.copytree(folder, tmp_path / name)
        monkeypatch.setattr(closing, "_MANY", many)
        if not many:
            monkeypatch.setattr(closing, "read_history", None)  # which would read all of it
        closing.complete(tmp_path / name)
    for path in (tmp_path / "whole").glob("*.parquet"):
        assert pd.read_parquet(path).equals(pd.read_parquet(tmp_path / "pieces" / path.name))
    assert load(tmp_path / "pieces").steps["step"].tolist() == [*range(STEPS)]


def test_a_compaction_that_fails_costs_nothing_but_time(tmp_path, eager, monkeypatch):
    def refused(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "ParquetWriter", refused)
    folder = written(tmp_path / "run")
    assert load(folder).steps["step"].tolist() == [*range(STEPS)]


def test_one_that_cannot_be_finished_is_made_anew_from_the_segments(tmp_path, eager, monkeypatch):
    replace = compaction.Path.replace

    def refused(path, target):
        if path.suffix == ".part":
            raise OSError(5, "Input/output error")
        return replace(path, target)

    monkeypatch.setattr(compaction.Path, "replace", refused)
    folder = written(tmp_path / "run")
    assert load(folder).steps["step"].tolist() == [*range(STEPS)]
    assert not (folder / "segments").exists()


def test_closing_that_is_refused_leaves_the_segments(tmp_path, eager, monkeypatch):
    def refused(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(closing, "write_json", refused)
        with pytest.raises(OSError, match="No space"):
            written(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")  # as a later process finds it
    assert load(tmp_path / "copy").steps["step"].tolist() == [*range(STEPS)]


def test_what_a_kill_left_of_it_is_not_read_and_goes_with_the_next_attempt(tmp_path, eager):
    folder = tmp_path / "run"
    writer, numbers = RunWriter(folder, meta("run")), np.random.default_rng(0)
    begin(writer)
    record(writer, 0, numbers)
    (folder / "segments" / "norms.part").write_bytes(b"PAR1 torn")
    shutil.copytree(folder, tmp_path / "killed")
    again = RunWriter(tmp_path / "killed", meta("run"))
    assert not list((tmp_path / "killed" / "segments").glob("*.part"))
    record(again, 1, numbers)
    again.close("complete")
    assert load(tmp_path / "killed").steps["step"].tolist() == [0, 1]


def test_after_sigkill_while_it_compacts_every_acknowledged_step_is_there(tmp_path):
    with launched(WRITE) as launcher:
        found = [kill_once(launcher, tmp_path / f"run{trial}", seed=trial) for trial in range(5)]
    assert [one.lost for one in found] == [0] * 5
    assert all(one.gone_on for one in found)
