"""What is sent arrives at trackers: each is asked afterwards what it has."""

import json
import sqlite3
import struct

import pytest

from gradlens.errors import GradlensError
from gradlens.integrations import trackers
from tests.lens.test_sending import NAME, sent


def expected(recording) -> dict[int, float]:
    norms = recording.norms[recording.norms["site"] == "2"]
    return dict(zip(norms["step"], norms["rescaling"], strict=True))


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


def test_trackio():
    trackio = needs("trackio", "test")
    run = trackio.init(project="seen", name="mine", embed=False, auto_log_cpu=False, auto_log_gpu=False)
    recording = sent(run)
    trackers.send_report(recording, trackio)
    trackio.finish()
    with sqlite3.connect(trackio.TRACKIO_DIR / "seen.db") as kept:
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
    wandb.teardown()  # what finish leaves to its service is written then
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
