"""What is read of some columns is what is read of the whole; what is read at once is what was written one by one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gradlens.recording import RunWriter, load
from gradlens.recording.schema import PUBLIC, names
from tests.recording.folders import FOLDERS, begin, make, meta, record

SOME = {
    "norms": ("kept", "inv_sigma", "nonfinite"),
    "params": ("grad_norm", "update_ratio", "rows"),
    "activations": ("rms",),
}
KEYS = {"norms": ["step", "site", "call", "rank"], "params": ["step", "name"]}
KEYS["activations"] = [*KEYS["norms"], "tensor"]


@pytest.mark.parametrize("kind", FOLDERS)
def test_some_columns_are_those_of_the_whole(kind: str, tmp_path: Path) -> None:
    folder = make(kind, tmp_path / "run")
    whole, part = load(folder), load(folder, SOME)
    for recordings in ((whole, part), (whole.over_processes(), part.over_processes())):
        for table in PUBLIC:
            all_columns, own = (recording.table(table) for recording in recordings)
            if table in SOME:
                assert set(own) == {*SOME[table], *KEYS[table]}
            pd.testing.assert_frame_equal(own, all_columns[own.columns])


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_column_can_be_read_alone(kind: str, tmp_path: Path) -> None:
    folder = make(kind, tmp_path / "run")
    whole = load(folder)
    for table in SOME:
        for column in names(PUBLIC[table]):
            alone = load(folder, {table: (column,)}).table(table)
            pd.testing.assert_series_equal(alone[column], whole.table(table)[column])


def test_messages_of_one_shape_and_of_others_are_read_as_arrow_reads_them(tmp_path: Path) -> None:
    writer, numbers = RunWriter(tmp_path / "run", meta("run")), np.random.default_rng(0)
    begin(writer)
    for step in range(30):
        record(writer, step, numbers)
        if step % 7 == 3:  # a name, a number of rows and a missing whole number that are others
            keys = {"step": [step], "site": ["a longer name"], "call": [None], "rank": [0]}
            rows = {"width": [8], "vectors": [8], **keys}
            floats = {field: [0.5] for field in _stored(tmp_path, "norms") if field not in rows}
            writer.append("norms", rows | floats)
    read = load(tmp_path / "run")
    for table in ("norms", "params", "activations", "steps"):
        with pa.ipc.open_stream((tmp_path / "run" / "segments" / f"{table}-r0-a0.arrows").read_bytes()) as stream:
            written = pa.Table.from_batches(list(stream)).to_pandas(maps_as_pydicts="lossy")
        for column in written.columns.intersection(read._stored[table].columns):
            pd.testing.assert_series_equal(read._stored[table][column], written[column], check_names=False)
    accuracy = [pairs["accuracy"] for pairs in written["extra"]]
    assert read.steps["accuracy"].tolist() == accuracy


def _stored(folder: Path, table: str) -> list[str]:
    with pa.ipc.open_stream((folder / "run" / "segments" / f"{table}-r0-a0.arrows").read_bytes()) as stream:
        return list(stream.schema.names)
