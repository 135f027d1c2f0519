"""The run folder: nothing acknowledged is lost, nothing is overwritten, every damage has a clear message."""

import json
import os
import random
import resource
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from gradlens import load
from gradlens.errors import GradlensError, NothingFoundError, RecordingError
from gradlens.recording import SCHEMA_VERSION, Recording, RunWriter
from gradlens.recording.schema import PUBLIC, STORED, names
from tests.killing import killed, launched
from tests.recording.folders import without_digests

META = {"kind": "training", "label": "a run"}


def steps(*numbers: int, **columns: float) -> dict:
    rows = {name: [float("nan")] * len(numbers) for name in names(STORED["steps"])}
    rows |= {name: [value] * len(numbers) for name, value in columns.items()}
    return {**rows, "step": list(numbers), "extra": [{"accuracy": number / 10} for number in numbers]}


def write(folder: Path, *numbers: int, status: str = "complete", **columns: float) -> Path:
    writer = RunWriter(folder, META)
    for number in numbers:
        writer.append("steps", steps(number, **columns))
    writer.close(status)
    return folder


def test_a_finished_run_is_parquet_that_pandas_reads_without_gradlens(tmp_path):
    folder = write(tmp_path / "run", 0, 1, 2, loss=1.5)
    frame = pd.read_parquet(folder / "steps.parquet")
    assert frame["step"].tolist() == [0, 1, 2]
    assert frame["accuracy"].tolist() == [0.0, 0.1, 0.2]
    field = pq.read_schema(folder / "steps.parquet").field("loss")
    assert field.metadata[b"meaning"].startswith(b"the loss that was passed to step()")
    assert not (folder / "segments").exists()


def test_a_finished_run_is_never_overwritten(tmp_path):
    folder = write(tmp_path / "run", 0)
    with pytest.raises(RecordingError, match="never overwritten"):
        RunWriter(folder, META)
    assert load(folder).steps["step"].tolist() == [0]


def test_a_later_attempt_replaces_earlier_rows_from_its_start_on(tmp_path):
    folder = write(tmp_path / "run", 0, 1, 2, 3, status="interrupted", loss=1.0)
    write(folder, 2, 3, 4, loss=2.0)
    recorded = load(folder).steps
    assert recorded["step"].tolist() == [0, 1, 2, 3, 4]
    assert recorded["loss"].tolist() == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert load(folder).meta["attempts"] == 2


def test_one_process_writes_a_folder_at_a_time(tmp_path):
    writer = RunWriter(tmp_path / "run", META)
    writer.append("steps", steps(0))
    with pytest.raises(RecordingError, match="another one is writing"):
        RunWriter(tmp_path / "run", META)
    # Reading while it is written is fine, and says so.
    assert load(tmp_path / "run").meta["status"] == "running"
    writer.close("complete")


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_a_torn_last_batch_costs_the_step_it_was_writing_and_no_other(tmp_path, cut):
    folder = write(tmp_path / "run", 0, 1, 2, status="interrupted")
    segment = next((folder / "segments").glob("steps-*"))
    segment.write_bytes(segment.read_bytes()[:-cut])
    assert load(folder).steps["step"].tolist() == [0, 1]


def damaged(kind: str, folder: Path) -> Path:
    """Return a run folder that is broken in one way."""
    if kind == "missing":
        return folder / "nowhere"
    write(folder, 0, 1)
    manifest = folder / "manifest.json"
    if kind.endswith("older"):
        without_digests(folder)
    if kind == "foreign":
        manifest.unlink()
    elif kind == "not json":
        manifest.write_text("{")
    elif kind == "other json":
        manifest.write_text('{"name": "something else"}')
    elif kind == "newer":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema": SCHEMA_VERSION + 1}))
    elif kind.startswith("truncated"):
        path = folder / "steps.parquet"
        path.write_bytes(path.read_bytes()[:-50])
    elif kind.startswith("foreign table"):
        pd.DataFrame({"a": [1]}).to_parquet(folder / "steps.parquet")
    elif kind == "comparison":
        manifest.write_text(json.dumps({"schema": 1, "kind": "compare", "runs": ["runs/a/init"]}))
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is none at"),
        ("foreign", r"holds a manifest.json; .* does not"),
        ("not json", "must be a gradlens manifest"),
        ("other json", "must be a gradlens manifest"),
        ("newer", "written with schema 2; this gradlens reads up to 1"),
        ("truncated", r"steps.parquet must be the file that the run was closed with"),
        ("foreign table", r"steps.parquet must be the file that the run was closed with"),
        ("truncated, older", r"steps.parquet must be a whole Parquet file"),
        ("foreign table, older", r"steps.parquet must hold the column"),
        ("comparison", "Load one of its runs: runs/a/init"),
    ],
)
def test_a_damaged_run_names_the_file_and_what_to_do(tmp_path, kind, message):
    with pytest.raises(GradlensError, match=message):
        load(damaged(kind, tmp_path / "run"))


def test_a_folder_with_other_files_is_not_taken_for_a_run_folder(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RecordingError, match=r"holds thesis.tex"):
        RunWriter(tmp_path, META)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_full_disk_says_so_and_keeps_what_was_written(tmp_path):
    writer = RunWriter(tmp_path / "run", META)
    writer.append("steps", steps(0, 1, 2))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    written = max(p.stat().st_size for p in (tmp_path / "run" / "segments").iterdir())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (written + 100, limit[1]))
        with pytest.raises(RecordingError, match="Everything written before is safe"):
            writer.append("steps", steps(3))
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        with pytest.raises(RecordingError, match="failed"):  # nothing may follow a torn batch
            writer.append("steps", steps(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, previous)
    writer.close("complete")
    assert load(tmp_path / "run").steps["step"].tolist() == [0, 1, 2]


#: Imports torch once, then forks a training process for every folder named on stdin and prints its number. The child
#: appends a line to FOLDER.ack after each step() that returned.
TRAIN = """
    import os, sys, torch, gradlens
    torch.set_num_threads(1)

    def write(folder):
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with gradlens.attach(model, out=folder) as lens:
            acknowledged = os.open(folder + ".ack", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            for step in range(100000):
                optimizer.zero_grad()
                loss = model(torch.randn(4, 8)).square().mean()
                loss.backward()
                optimizer.step()
                lens.step(loss=loss)
                os.write(acknowledged, f"{step}\\n".encode())
"""


def test_after_sigkill_at_random_moments_every_acknowledged_step_is_there(tmp_path):
    chance = random.Random(0)
    with launched(TRAIN) as launcher:
        for trial in range(12):  # `make kills` has a hundred
            folder = tmp_path / f"run{trial}"
            acknowledged = killed(launcher, folder, chance.uniform(0, 0.25))
            recording = load(folder)
            recorded = recording.steps["step"].tolist()
            assert recorded[: len(acknowledged)] == acknowledged
            assert len(recorded) <= len(acknowledged) + 1
            assert set(acknowledged) <= set(recording.norms["step"])
            assert recording.meta["status"] == "interrupted"


@pytest.mark.parametrize("left", ["lock", "manifest.json.tmp"])
def test_a_run_killed_before_its_manifest_was_written_starts_anew(tmp_path, left):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / left).write_text("")
    assert load(write(tmp_path / "run", 0)).steps["step"].tolist() == [0]


def test_micro_and_rank_rows_merge_by_adding_sums_never_by_averaging():
    row = {c.name: 1.0 for c in STORED["norms"]} | {"site": "a", "width": 4, "step": 0, "call": 0, "rank": 0}
    stored = pd.DataFrame([row] * 2)
    stored.loc[0, ["energy_g", "energy_kept", "energy_recentering", "energy_mean"]] = [10.0, 9.0, 1.0, 1.0]
    stored.loc[1, ["energy_g", "energy_kept", "energy_recentering", "energy_mean"]] = [90.0, 45.0, 9.0, 9.0]
    row = Recording(META, {"norms": stored}).norms.iloc[0]
    assert row[["kept", "recentering", "rescaling"]].tolist() == pytest.approx([0.54, 0.10, 0.36])
    assert row["vectors"] == 2


def test_a_recording_is_a_value_its_tables_are_copies():
    recording = Recording.from_tables(META, steps=pd.DataFrame({"step": [0, 1], "loss": [1.0, 2.0]}))
    mine = recording.steps
    mine["loss"] = np.nan
    assert recording.steps["loss"].tolist() == [1.0, 2.0]
    with pytest.raises(TypeError):
        recording.meta["label"] = "other"


@pytest.mark.parametrize("table", PUBLIC)
def test_empty_tables_have_the_documented_columns(table):
    assert list(Recording(META, {}).table(table).columns) == names(PUBLIC[table])


def test_an_empty_recording_says_what_is_missing():
    with pytest.raises(NothingFoundError, match=r"call lens.step\(\)"):
        _ = Recording(META, {}).last_step


def test_a_rename_makes_the_manifest_whole_at_every_moment(tmp_path, monkeypatch):
    folder = write(tmp_path / "run", 0, status="interrupted")
    before = (folder / "manifest.json").read_bytes()

    def refuse(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RecordingError, match="No space left on device"):
        RunWriter(folder, META)
    assert (folder / "manifest.json").read_bytes() == before
    assert not list(folder.glob("*.tmp"))
    assert os.path.exists(folder)
