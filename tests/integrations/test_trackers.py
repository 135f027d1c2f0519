"""What is recorded arrives at trackers: each is asked afterwards what it has."""

import json
import sqlite3
import struct

import pytest
import torch

import gradlens
from gradlens.errors import GradlensError
from gradlens.integrations import trackers
from tests.lens.networks import Thrice, stack
from tests.lens.training_loop import train

NAME = "gradlens/norms/2/rescaling"


class Kept(dict):
    """A tracker that keeps numbers by name and step."""

    def log(self, numbers, *, step):
        for name, value in numbers.items():
            assert (name, step) not in self, "sent twice"
            self[name, step] = value


def sent(send, steps=4, **options) -> gradlens.Recording:
    model = stack()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with gradlens.attach(model, send=send, **options) as lens:
        train(model, steps=steps, lens=lens, optimizer=optimizer, lr=1e-2, tokens=7.0)
    return lens.recording


def expected(recording) -> dict[int, float]:
    norms = recording.norms[recording.norms["site"] == "2"]
    return dict(zip(norms["step"], norms["rescaling"], strict=True))


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("folder", [False, True])
def test_a_tracker_gets_the_columns_of_recorded_steps_by_name(every, folder, tmp_path):
    kept = Kept()
    recording = sent((kept, ""), every=every, out=tmp_path / "run" if folder else None)
    tables = {"norms": "site", "params": "name", "steps": None}
    found = 0
    for table, key in tables.items():
        for row in recording.table(table).to_dict("records"):
            for column, value in row.items():
                name = "/".join(filter(None, ("gradlens", table, key and row[key], column)))
                if isinstance(value, float) and value == value:
                    assert kept.get((name, row["step"])) == pytest.approx(value, rel=1e-12), name
                    found += 1
    assert found > 100 // every
    assert kept["gradlens/steps/tokens", 0] == 7.0


def test_what_is_sent_is_chosen():
    kept, default = Kept(), Kept()
    sent((kept, r"norms/1\.\d\.norm/(kept|rescaling)$"))
    assert {name for name, _ in kept} == {
        f"gradlens/norms/1.{i}.norm/{share}" for i in (0, 1, 2) for share in ("kept", "rescaling")
    }
    sent(default)
    assert len({name for name, _ in default}) < 60, "a model has many parameters"
    assert {"gradlens/steps/grad_norm", NAME, "gradlens/params/2.weight/grad_norm"} <= {name for name, _ in default}


def test_calls_of_one_norm_have_names_of_their_own():
    kept = Kept()
    model = stack(Thrice, blocks=1)
    with gradlens.attach(model, send=kept) as lens:
        train(model, steps=1, lens=lens)
    assert {("gradlens/norms/1.0.norm/rescaling", 0), ("gradlens/norms/1.0.norm/call2/rescaling", 0)} <= kept.keys()


def test_a_tracker_that_fails_ends_neither_training_nor_recording(capsys):
    class Full:
        def log(self, numbers, *, step):
            raise OSError("quota")

    recording = sent(Full())
    assert recording.steps["step"].tolist() == [0, 1, 2, 3]
    assert capsys.readouterr().err.count("nothing more is sent from step 0 on: the tracker failed: OSError: quota") == 1
    with pytest.raises(OSError, match="quota"):
        sent(Full(), strict=True)


@pytest.mark.parametrize("send", [object(), "wandb", (Kept(), "("), (Kept(), 3)])
def test_what_is_no_tracker_is_refused_before_anything_is_written(send, tmp_path):
    with pytest.raises(GradlensError, match="send"):
        gradlens.attach(stack(), out=tmp_path / "run", send=send)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------- real ones


def needs(name: str, extra: str = "trackers"):
    return pytest.importorskip(name, reason=f"needs the extra {extra}")


def test_tensorboard(tmp_path):
    needs("tensorboard", "test")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        recording = sent(trackers.TensorBoard(writer))
    events = EventAccumulator(str(tmp_path)).Reload().Scalars(NAME)
    assert {event.step: event.value for event in events} == pytest.approx(expected(recording), rel=1e-6)
    with pytest.raises(GradlensError, match="log_artifact"):
        trackers.send_report(recording, trackers.TensorBoard(writer))


def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = needs("trackio", "test")
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path, raising=False)
    run = trackio.init(project="seen", name="mine", embed=False, auto_log_cpu=False, auto_log_gpu=False)
    recording = sent(run)
    trackers.send_report(recording, trackio)
    trackio.finish()
    with sqlite3.connect(tmp_path / "seen.db") as kept:
        rows = kept.execute("select step, metrics from metrics").fetchall()
        artifacts = kept.execute("select name, type from artifacts").fetchall()
    assert {step: json.loads(metrics)[NAME] for step, metrics in rows} == pytest.approx(expected(recording))
    assert artifacts == [("gradlens-report", "report")]


def test_wandb_where_somebody_else_logs_more_often(tmp_path, monkeypatch):
    wandb = needs("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    run = wandb.init(dir=str(tmp_path), project="seen")
    for _ in range(10):
        run.log({"theirs": 1.0})
    recording = sent(trackers.Wandb(run))
    trackers.send_report(recording, trackers.Wandb(run))
    run.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = list(wandb_records(file))
    rows = [{"/".join(i.nested_key) or i.key: i.value_json for i in r.history.item} for r in records]
    got = {int(row["gradlens/step"]): float(row[NAME]) for row in rows if NAME in row}
    assert got == pytest.approx(expected(recording))
    kept = [record.artifact for record in records if record.WhichOneof("record_type") == "artifact"]
    assert [(artifact.name, artifact.type) for artifact in kept] == [("gradlens-report", "report")]


def wandb_records(file):
    """The records of an offline run: protocol buffers in LevelDB's log format, after a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no head fits: the block ends
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def test_mlflow(tmp_path):
    mlflow = needs("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/kept.db")
    mlflow.create_experiment("seen", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("seen")
    with mlflow.start_run() as run:
        recording = sent(trackers.MLflow(mlflow))
        trackers.send_report(recording, trackers.MLflow(mlflow))
    client = mlflow.MlflowClient()
    history = client.get_metric_history(run.info.run_id, NAME)
    assert {metric.step: metric.value for metric in history} == pytest.approx(expected(recording))
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["gradlens.pdf"]
