"""A recording that cannot lie: what was damaged is refused, or left out and said; what is whole is read."""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from gradlens import load
from gradlens.analysis import Finding
from gradlens.cli.diagnose import junit
from gradlens.cli.main import main
from gradlens.errors import RecordingError
from gradlens.recording import Recording, RunWriter, attempts, closing, folder, locks, manifest
from gradlens.recording.schema import STORED, TABLES, names
from tests.fuzz_recordings import FAULTS, fuzz
from tests.recording.folders import FOLDERS, STEPS, begin, make, record

pytestmark = pytest.mark.filterwarnings("ignore:The recording at .* is damaged")


def test_no_mutation_of_some_hundreds_is_read_wrong_or_ends_in_a_traceback_or_a_crash():
    faults = [said for said in fuzz(mutations=456, seed=7) if said[2] in FAULTS]
    assert not faults


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_copy_of_a_folder_reads_as_the_folder(tmp_path, kind):
    made = make(kind, tmp_path / "run")
    shutil.copytree(made, tmp_path / "copy")
    for path in (tmp_path / "copy").glob("lock*"):
        path.unlink()  # who copies may leave them out
    first, second = load(made), load(tmp_path / "copy")
    assert len(first.steps) == STEPS
    assert all(first.table(name).equals(second.table(name)) for name in TABLES)
    assert "damage" not in first.meta


def segment(run: Path, name: str) -> Path:
    return run / "segments" / f"{name}.arrows"


def steps_of(recording: Recording) -> list[int]:
    return recording.steps["step"].tolist()


@pytest.mark.parametrize("table", ["activations", "norms", "params", "sites", "steps"])
def test_a_deleted_segment_of_one_process_does_not_read_as_all_processes(tmp_path, table):
    run = make("two killed", tmp_path / "run")
    segment(run, f"{table}-r1-a0").unlink()
    with pytest.raises(RecordingError, match=f"segments/{table}-r1-a0.arrows lacks"):
        load(run)


def flip(path: Path, part: float) -> None:
    """Flip one bit, at a part of the file's length."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * part)] ^= 1
    path.write_bytes(content)


def test_a_recording_ends_before_a_batch_that_was_damaged_and_says_which_file_and_step(tmp_path):
    run = make("two killed", tmp_path / "run")
    whole = load(run)
    flip(segment(run, "norms-r1-a0"), 0.6)
    with pytest.warns(UserWarning, match=r"is damaged: segments/norms-r1-a0\.arrows"):
        recording = load(run)
    last = recording.last_step
    assert "damaged" in repr(recording)
    assert 0 < last < STEPS - 1
    said = " ".join(recording.meta["damage"])
    assert "segments/norms-r1-a0.arrows is damaged: the checksum of a batch does not fit" in said
    assert f"Steps from {last + 1} on are left out" in said
    for name in ("norms", "activations", "params", "steps"):
        rows = whole.table(name)
        assert recording.table(name).equals(rows[rows["step"] <= last].reset_index(drop=True))


def test_damage_in_rows_that_a_later_attempt_replaced_costs_nothing(tmp_path):
    run = make("killed", tmp_path / "run")
    whole = load(run)
    path = segment(run, "norms-r0-a0")  # of steps 0 to 4, of which the second attempt replaced 3 and 4
    flip(path, 0.95)
    recording = load(run)
    assert recording.norms.equals(whole.norms)
    assert recording.steps.equals(whole.steps)
    assert "norms-r0-a0.arrows is damaged" in recording.meta["damage"][0]


@pytest.mark.parametrize("cut", [1, 7, 100])
@pytest.mark.parametrize(
    ("kind", "name", "whole"),
    [("killed", "norms-r0-a1", STEPS), ("two killed", "steps-r1-a0", STEPS - 1)],
    ids=["in the rows of a step", "in the row that counts it"],
)
def test_a_torn_tail_is_what_a_kill_leaves_and_is_not_called_damage(tmp_path, kind, name, whole, cut):
    run = make(kind, tmp_path / "run")
    path = segment(run, name)
    os.truncate(path, path.stat().st_size - cut)
    recording = load(run)
    assert steps_of(recording) == [*range(whole)]
    assert recording.meta["status"] == "interrupted"
    assert "damage" not in recording.meta


def test_segments_of_an_earlier_attempt_that_were_cut_are_missed_even_between_batches(tmp_path):
    run = make("killed", tmp_path / "run")
    path = segment(run, "steps-r0-a0")
    with pa.ipc.open_stream(path.read_bytes()) as stream:
        sizes = [batch.serialize().size for batch in stream]
    os.truncate(path, path.stat().st_size - 3 * (path.stat().st_size // (len(sizes) + 1)))
    recording = load(run)
    assert steps_of(recording) == [*range(recording.last_step + 1)]
    assert recording.last_step < 3
    assert any("steps-r0-a0.arrows" in said for said in recording.meta["damage"])


def test_a_finished_run_is_read_from_its_tables_whatever_lies_in_segments(tmp_path):
    run, killed = make("two finished", tmp_path / "run"), make("two killed", tmp_path / "killed", other=True)
    whole = load(run)
    shutil.copytree(killed / "segments", run / "segments")
    shutil.copy(segment(killed, "norms-r0-a0"), run / "segments" / "norms-r0-a0 (1).arrows")
    assert all(load(run).table(name).equals(whole.table(name)) for name in TABLES)


def test_a_copy_under_a_file_managers_name_is_no_segment(tmp_path):
    run = make("two killed", tmp_path / "run")
    whole = load(run)
    shutil.copy(segment(run, "norms-r0-a0"), run / "segments" / "norms-r0-a0 (1).arrows")
    assert load(run).norms.equals(whole.norms)
    assert load(run).meta["processes"]["recorded"] == 2


def test_any_arrow_reader_reads_a_segment_and_any_parquet_reader_a_table(tmp_path):
    run = make("two killed", tmp_path / "run")
    rows = pa.ipc.open_stream(segment(run, "norms-r1-a0").read_bytes()).read_pandas()
    assert sorted(set(rows["step"])) == [*range(STEPS)]
    finished = make("finished", tmp_path / "finished")
    assert len(pq.read_table(finished / "steps.parquet")) == STEPS


def test_a_parquet_reader_without_gradlens_finds_a_damaged_page(tmp_path):
    run = make("finished", tmp_path / "run")
    path = run / "params.parquet"
    column = pq.ParquetFile(path).metadata.row_group(0).column(3)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        pq.read_table(path, page_checksum_verification=True)
    with pytest.raises(RecordingError, match=r"params\.parquet must be the file that the run was closed with"):
        load(run)


def older(kind: str, run: Path) -> Path:
    """Return a run as it was recorded before there were checksums."""
    make(kind, run)
    for path in run.glob("*.parquet"):
        rows = pq.read_table(path)
        pq.write_table(rows.replace_schema_metadata({"gradlens.schema": "1"}), path)
    for path in run.glob("segments/*.arrows"):
        with pa.ipc.open_stream(path.read_bytes()) as stream:
            batches = list(stream)
        schema = stream.schema.remove_metadata()
        with path.open("wb") as file, pa.ipc.new_stream(file, schema) as out:
            for batch in batches:
                out.write_batch(batch.replace_schema_metadata())
    told = json.loads((run / "manifest.json").read_text())
    told = {key: value for key, value in told.items() if key not in (manifest.SEAL, "run")}
    told |= {"tables": list(told["tables"])} if "tables" in told else {}
    (run / "manifest.json").write_text(json.dumps(told))
    return run


@pytest.mark.parametrize("kind", [kind for kind in FOLDERS if kind != "thinned"])  # which came after
def test_a_run_recorded_before_there_were_checksums_is_read(tmp_path, kind):
    run, now = older(kind, tmp_path / "older"), make(kind, tmp_path / "now")
    assert all(load(run).table(name).equals(load(now).table(name)) for name in TABLES)


def test_a_run_begun_before_there_were_checksums_goes_on(tmp_path):
    run = older("killed", tmp_path / "run")
    writer = RunWriter(run, {"label": "later"})
    row = {name: [1.0] for name in names(STORED["steps"])} | {
        "step": [STEPS],
        "nan_loss": [False],
        "reason": [None],
        "extra": [{}],
    }
    writer.append("steps", row)
    writer.close("complete")
    assert steps_of(load(run)) == [*range(STEPS + 1)]


def test_tables_of_two_runs_are_not_mixed(tmp_path):
    run, other = make("finished", tmp_path / "run"), make("finished", tmp_path / "other", other=True)
    shutil.copy(other / "norms.parquet", run / "norms.parquet")
    with pytest.raises(RecordingError, match=r"norms\.parquet must be the file that the run was closed with"):
        load(run)
    shutil.copy(other / "manifest.json", older("finished", tmp_path / "older") / "manifest.json")
    with pytest.raises(RecordingError, match=r"\.parquet must be the file"):
        load(tmp_path / "older")


# ------------------------------------------------------------------ the manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"every": 0}, "every must be a whole number, 1 or more"),
        ({"every": True}, "every must be a whole number"),
        ({"status": "done"}, "status must be one of complete, diverged, running, interrupted"),
        ({"label": 3}, "label must be text"),
        ({"processes": {"world": "two"}}, "processes.world must be a whole number, 1 or more"),
        ({"processes": {"world": 1, "data": 2}}, "processes.data must be world or less"),
        ({"model": {"parameters": 1e30}}, "model.parameters must be a whole number, 0 or more"),
        ({"seeds": [0, "x"]}, r"seeds\[1\] must be a whole number"),
        ({"audit": {"norms": "all"}}, "audit.norms must be a list"),
        ({"tables": {"norms": "abc"}}, "tables.norms must be a SHA-256"),
        ({"schema": "1"}, "schema must be a whole number"),
        ({"schema": 10**400}, "schema must be a whole number"),
    ],
)
def test_a_value_of_another_type_or_range_is_one_sentence_with_the_files_name(tmp_path, change, message):
    run = make("finished", tmp_path / "run")
    path = run / "manifest.json"
    told = json.loads(path.read_text()) | change
    path.write_text(json.dumps(manifest.sealed(told)))
    with pytest.raises(RecordingError, match=rf"manifest\.json must be a gradlens manifest; .*{message}"):
        load(run)


def test_a_manifest_that_was_edited_is_not_believed_but_may_be_laid_out_anew(tmp_path):
    run = make("finished", tmp_path / "run")
    path = run / "manifest.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(told.items()))))
    assert len(load(run).steps) == STEPS
    told["model"]["parameters"] += 1
    path.write_text(json.dumps(told))
    with pytest.raises(RecordingError, match="it was changed since gradlens wrote it"):
        load(run)


def test_metadata_that_json_cannot_hold_are_refused_and_do_not_stay(tmp_path):
    writer = RunWriter(tmp_path / "run", {"label": "a"})
    with pytest.raises(RecordingError, match="Metadata must be JSON values"):
        writer.annotate({"mine": {(1, 2): 3}})
    writer.annotate({"file": "\udce9.txt"})  # a file's name that is no UTF-8
    writer.close("interrupted")
    assert load(tmp_path / "run").meta["status"] == "interrupted"


# ------------------------------------------------------------------ closing


def test_a_run_whose_process_was_killed_before_it_left_tables_is_completed_by_the_next_reader(tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr("gradlens.recording.store.complete", lambda *_: None)
    shutil.copytree(make("two finished", tmp_path / "made"), run)
    assert not list(run.glob("*.parquet"))
    recording = load(run)
    assert recording.meta["status"] == "complete"
    assert not (run / "segments").exists()
    assert {path.stem for path in run.glob("*.parquet")} == set(recording.meta["tables"])
    assert recording.meta["processes"]["recorded"] == 2
    assert load(run).norms.equals(recording.norms)


def test_who_may_not_write_the_folder_reads_the_segments(tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr("gradlens.recording.store.complete", lambda *_: None)
    shutil.copytree(make("two finished", tmp_path / "made"), run)

    def refuse(folder: Path) -> None:
        raise RecordingError("A run folder must be writable")

    monkeypatch.setattr("gradlens.recording.reading.complete", refuse)
    assert steps_of(load(run)) == [*range(STEPS)]
    assert (run / "segments").exists()


@pytest.mark.parametrize("left", range(8))
def test_a_run_killed_at_any_moment_of_its_closing_reads_the_same_and_is_completed(tmp_path, monkeypatch, left):
    """After so many files were written, or segments removed, the process is gone."""
    run = tmp_path / "run"
    monkeypatch.setattr("gradlens.recording.store.complete", lambda *_: None)
    shutil.copytree(make("two finished", tmp_path / "made"), run)

    class Killed(BaseException):
        pass

    def counted(real):
        def call(*asked, **named):
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            return real(*asked, **named)

        return call

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        for name in ("replace", "write_json", "remove_segments"):
            patch.setattr(closing, name, counted(getattr(closing, name)))
        closing.complete(run)
    for _ in range(2):
        assert steps_of(load(run)) == [*range(STEPS)]
        assert load(run).norms["rank"].nunique() == 2
    assert "tables" in load(run).meta


def test_a_run_whose_segments_are_damaged_keeps_them(tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr("gradlens.recording.store.complete", lambda *_: None)
    shutil.copytree(make("two finished", tmp_path / "made"), run)
    flip(segment(run, "norms-r1-a0"), 0.6)
    with pytest.raises(RecordingError, match="cannot be closed"):
        closing.complete(run)
    assert load(run).meta["damage"]
    assert segment(run, "norms-r1-a0").exists()


def test_segments_that_a_closed_run_lost_while_they_were_read_are_not_missed(tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr("gradlens.recording.store.complete", lambda *_: None)
    shutil.copytree(make("two finished", tmp_path / "made"), run)
    monkeypatch.setattr("gradlens.recording.reading.complete", lambda folder: None)
    read = folder.segments

    def closed_meanwhile(where: Path) -> dict:
        found = read(where)
        monkeypatch.setattr("gradlens.recording.attempts.segments", read)
        closing.complete(where)
        return found

    monkeypatch.setattr("gradlens.recording.attempts.segments", closed_meanwhile)
    assert steps_of(load(run)) == [*range(STEPS)]


def test_reading_while_it_is_written_finds_no_damage(tmp_path):
    """The writer goes on between the reading of two segments."""
    writer = RunWriter(tmp_path / "run", {"label": "a"})
    numbers, steps = np.random.default_rng(0), iter(range(2, 100))
    begin(writer)
    for step in range(2):
        record(writer, step, numbers)
    real = attempts.read

    def read(*asked, **more):
        found = real(*asked, **more)
        for _ in range(3):
            record(writer, next(steps), numbers)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempts, "read", read)
        recording = load(tmp_path / "run")
    assert "damage" not in recording.meta
    assert steps_of(recording) == sorted(set(recording.norms["step"]))
    assert len(steps_of(recording)) >= 2


# ------------------------------------------------------------------ links


@pytest.mark.parametrize("place", ["manifest.json", "norms.parquet"])
def test_a_planted_link_is_not_followed_by_a_reader(tmp_path, place):
    run, other = make("finished", tmp_path / "run"), make("finished", tmp_path / "other", other=True)
    (run / place).unlink()
    (run / place).symlink_to(other / place)
    with pytest.raises(RecordingError, match=rf"{place} must be a file; it is a link"):
        load(run)


@pytest.mark.parametrize("place", ["manifest.json.tmp", "norms.parquet.tmp", "segments/norms-r0-a0.arrows", "lock"])
def test_a_planted_link_is_not_written_through(tmp_path, place):
    mine = tmp_path / "thesis.tex"
    mine.write_text("years of work")
    run = tmp_path / "run"
    (run / "segments").mkdir(parents=True)
    (run / place).symlink_to(mine)
    with pytest.MonkeyPatch.context() as patch:
        if place == "norms.parquet.tmp":  # there from the start, in somebody's folder
            patch.setattr(locks, "_EARLY", re.compile(".*"))
        with contextlib.suppress(RecordingError):
            FOLDERS["finished"](run, 0)
    assert mine.read_text() == "years of work"


def test_a_report_to_ci_is_xml_whatever_a_label_or_a_claim_holds():
    claim = "run\x1b[31m \ud800 \ufffe says \x00"
    found = Finding(code="GL1", status="fail", claim=claim, analysis="a", subject="s\x07", remedies=("do\x08",))
    suite = ElementTree.fromstring(junit([found], "fail"))
    assert "\x1b" not in ElementTree.tostring(suite, encoding="unicode")


def test_a_message_reaches_a_terminal_without_control_characters(tmp_path):
    run = tmp_path / "red\x1b[31m"
    run.mkdir()
    (run / "manifest.json").write_text("{")
    said = CliRunner().invoke(main, ["diagnose", str(run)])
    assert said.exit_code == 2
    assert "manifest.json must be a gradlens manifest" in said.output
    assert "\x1b" not in said.output


def test_texts_from_a_folder_are_printable(tmp_path):
    writer = RunWriter(tmp_path / "run", {"label": "red\x1b[31m\u202e"})
    row = {name: [1.0] for name in names(STORED["steps"])}
    writer.append("steps", row | {"step": [0], "nan_loss": [False], "reason": [None], "extra": [{"a\x07b": 1.0}]})
    site = {name: [None] for name in names(STORED["sites"])} | {"site": ["layer\x1b]0;x\x07"], "kind": ["norm"]}
    writer.append("sites", site | {"order": [0]})
    writer.close("complete")
    recording = load(tmp_path / "run")
    assert recording.label == "red�[31m"
    assert recording.sites["site"].tolist() == ["layer�]0;x�"]
    assert "a�b" in recording.steps
