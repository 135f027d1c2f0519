"""One run folder, several attempts, several processes: a step is whole or is not there, in every table."""

import os
import time
from pathlib import Path

import pytest

from gradlens import load
from gradlens.errors import RecordingError
from gradlens.lens.sinks import FolderSink
from gradlens.recording import RunWriter
from gradlens.recording.locks import being_written
from gradlens.recording.schema import STORED, names

META = {"kind": "attached", "label": "a run", "processes": {"world": 2, "data": 2, "recorded": 1}}


def record(writer: RunWriter, step: int, *, whole: bool = True, loss: float = 1.0) -> None:
    """Append a step as a lens does: its row of ``steps`` last."""
    row = {c.name: [1.0] for c in STORED["norms"]}
    keys = {"step": [step], "site": ["norm"], "call": [0], "rank": [writer.rank], "width": [4], "vectors": [8]}
    writer.append("norms", row | keys)
    if whole:
        numbers = {name: [float("nan")] for name in names(STORED["steps"])}
        told = {"step": [step], "loss": [loss], "grad_norm": [3.0 + writer.rank], "seconds": [0.5], "extra": [{}]}
        writer.append("steps", numbers | told)


def counted(folder: Path) -> tuple[list[int], list[int]]:
    recording = load(folder)
    return recording.steps["step"].tolist(), sorted(set(recording.norms["step"]))


def test_the_step_that_a_kill_cut_off_is_in_no_table(tmp_path):
    writer = RunWriter(tmp_path / "run", META)
    for step in range(3):
        record(writer, step, whole=step < 2)
    assert counted(tmp_path / "run") == ([0, 1], [0, 1])


def test_an_attempt_replaces_the_rows_of_all_tables_from_its_first_step_on(tmp_path):
    first = RunWriter(tmp_path / "run", META)
    for step in range(10):
        record(first, step)
    first.close("interrupted")
    second = RunWriter(tmp_path / "run", META)
    record(second, 4, whole=False)
    second.close("interrupted")
    assert counted(tmp_path / "run") == ([0, 1, 2, 3], [0, 1, 2, 3])


def test_a_step_counts_when_every_process_has_counted_it(tmp_path):
    first, second = (RunWriter(tmp_path / "run", META, rank) for rank in (0, 1))
    for step in range(3):
        record(first, step, loss=1.0)
        record(second, step, whole=step < 2, loss=2.0)
    assert counted(tmp_path / "run") == ([0, 1], [0, 1])
    recording = load(tmp_path / "run")
    assert recording.steps["loss"].tolist() == [1.5, 1.5]
    assert recording.steps["grad_norm"].tolist() == [5.0, 5.0], "the root of the sum of squares: 3 and 4"
    assert recording.norms["rank"].tolist() == [0, 0, 1, 1]
    merged = recording.over_processes()
    assert merged.norms["vectors"].tolist() == [16, 16]
    assert merged.norms["grad_output_norm"].tolist() == [0.5**0.5] * 2, "each process has the gradient of its own loss"


def test_a_run_that_fewer_processes_go_on_with_is_read_to_its_end(tmp_path):
    writers = [RunWriter(tmp_path / "run", META, rank) for rank in (0, 1)]
    for writer in writers:
        for step in range(3):
            record(writer, step)
        writer.close("interrupted")
    alone = RunWriter(tmp_path / "run", META)
    for step in range(3, 6):
        record(alone, step)
    assert counted(tmp_path / "run") == ([*range(6)], [*range(6)])
    alone.close("complete")
    assert counted(tmp_path / "run") == ([*range(6)], [*range(6)])


def test_a_process_that_joins_later_counts_on_where_the_run_is(tmp_path):
    first = FolderSink(tmp_path / "run", META)
    for step in range(3):
        record(first, step)
    first.close("interrupted")
    assert [FolderSink(tmp_path / "run", META, rank).next_step() for rank in (0, 1)] == [3, 3]


def test_a_process_that_comes_before_rank_0_begins_at_the_first_step(tmp_path):
    second = FolderSink(tmp_path / "run", META, rank=1)
    assert second.next_step() == 0
    first = FolderSink(tmp_path / "run", META)
    assert first.run == second.run


def test_what_one_process_knows_between_recorded_steps_is_kept(tmp_path):
    first, second = (RunWriter(tmp_path / "run", META, rank) for rank in (0, 1))
    for writer in (first, second):
        record(writer, 0)
    numbers = {name: [float("nan")] for name in names(STORED["steps"])}
    first.append("steps", numbers | {"step": [7], "extra": [{"accuracy": 0.5}]})
    assert load(tmp_path / "run").steps["accuracy"].dropna().tolist() == [0.5]


@pytest.mark.parametrize("last", [0, 1])
def test_the_last_process_to_close_leaves_parquet_files(tmp_path, last):
    writers = [RunWriter(tmp_path / "run", META, rank) for rank in (0, 1)]
    for writer in writers:
        record(writer, 0)
    writers[1 - last].close("complete")
    assert (tmp_path / "run" / "segments").exists()
    writers[last].close("complete")
    assert not (tmp_path / "run" / "segments").exists()
    recording = load(tmp_path / "run")
    assert recording.meta["status"] == "complete"
    assert recording.meta["processes"]["recorded"] == 2
    assert recording.norms["rank"].tolist() == [0, 1]


def test_processes_may_begin_in_any_order_and_a_rank_is_one_process(tmp_path):
    second = RunWriter(tmp_path / "run", META, rank=1)
    first = RunWriter(tmp_path / "run", META)
    for writer in (first, second):
        record(writer, 0)
    with pytest.raises(RecordingError, match="One process writes a run folder at a time"):
        RunWriter(tmp_path / "run", META, rank=1)
    assert counted(tmp_path / "run") == ([0], [0])


def test_a_run_killed_while_its_segments_were_removed_is_whole(tmp_path, monkeypatch):
    writer = RunWriter(tmp_path / "run", META)
    record(writer, 0)
    monkeypatch.setattr("shutil.rmtree", lambda path, **options: (path / "norms-r0-a0.arrows").unlink())
    writer.close("complete")
    assert counted(tmp_path / "run") == ([0], [0])


def test_a_lock_is_given_back_where_a_child_still_has_its_file(tmp_path):
    writer = RunWriter(tmp_path / "run", META)
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    try:
        writer.close("interrupted")
        assert not being_written(tmp_path / "run")
        RunWriter(tmp_path / "run", META).close("interrupted")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.parametrize("table", ["norms", "steps"])
def test_a_table_that_was_deleted_is_missed(tmp_path, table):
    writer = RunWriter(tmp_path / "run", META)
    record(writer, 0)
    writer.close("complete")
    (tmp_path / "run" / f"{table}.parquet").unlink()
    with pytest.raises(RecordingError, match=f"must hold {table}.parquet"):
        load(tmp_path / "run")
