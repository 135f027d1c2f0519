"""A run that is thinned: what stays is what the whole run has of those steps, whoever reads it and whenever."""

import shutil

import numpy as np
import pytest

from gradlens import load
from gradlens.errors import RecordingError
from gradlens.recording import RunWriter, attempts, thinned, thinning
from gradlens.recording.schema import PUBLIC
from gradlens.recording.thinned import firsts, near_events, span_of
from tests.kill_recordings import WRITE, kill_once
from tests.killing import launched
from tests.recording.folders import begin, meta, probe, record

STEPS = 180
#: Written by hand, for parts of 30 steps and at most 40 spans: before step 120 one in 4 stays, and the first 32.
LEFT = [*range(32), *range(32, 120, 4), *range(120, STEPS)]
THINNED = {"keep": "thinned"}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Leave 30 steps whole, and at most 40 spans before."""
    monkeypatch.setattr(thinned, "SPANS", 40)
    monkeypatch.setattr(thinning, "WHOLE", 30)
    monkeypatch.setattr(thinning, "_GROUP", 7)


def write(folder, steps=range(STEPS), told=THINNED, rank=0, status="complete"):
    """Write steps whose numbers their number decides; return the folder."""
    writer = RunWriter(folder, meta("run") | told, rank)
    begin(writer)
    for step in steps:
        record(writer, step, np.random.default_rng([rank, step]))
        if step % 100 == 50:
            probe(writer, step)
        if writer._thinning is not None:
            writer._thinning.stop()  # so that each part is thinned before the next one ends
    writer.close(status)
    return folder


def rows(recording, steps=None):
    """Return all tables; of those with rows of each step only some steps."""
    tables = {name: recording.table(name) for name in PUBLIC}
    if steps is not None:
        for name in attempts.BY_STEP:
            tables[name] = tables[name][tables[name]["step"].isin(steps)].reset_index(drop=True)
    return tables


def assert_same(found, wanted):
    for name, frame in wanted.items():
        assert frame.equals(found[name]), name


def test_what_stays_is_what_the_whole_run_has_of_these_steps_before_and_after_it_is_closed(tmp_path):
    whole = rows(load(write(tmp_path / "whole", told={})), LEFT)
    killed = load(write(tmp_path / "killed", status="interrupted"))
    closed = load(write(tmp_path / "closed"))
    for recording in (killed, closed):
        assert recording.steps["step"].tolist() == LEFT
        assert_same(rows(recording), whole)
        assert recording.meta["thinned"] == {"before": 120, "span": 4}
        assert recording.meta["keep"] == "thinned"
    assert not (tmp_path / "closed" / "segments").exists()


def test_a_run_grows_no_further_once_it_is_thinned(tmp_path):
    folders = [write(tmp_path / str(count), range(count), status="interrupted") for count in (250, 500)]
    sizes = [sum(path.lstat().st_size for path in folder.rglob("*")) for folder in folders]
    assert sizes[1] < 1.2 * sizes[0]


def test_thinning_again_and_again_comes_to_what_thinning_at_once_leaves():
    draw = np.random.default_rng(0)
    for _ in range(20):
        steps = np.cumsum(draw.integers(1, 9, 2000))
        reasons = np.where(draw.random(2000) < 0.004, "nonfinite", None)
        parts = np.empty(0, dtype=int)
        for end in range(200, 2001, 200):
            known = np.union1d(parts, steps[end - 200 : end + 30])  # what comes after is known by its events
            near = near_events(reasons[np.isin(steps, known)])
            old = known < (steps[end] if end < 2000 else 10**9)
            near[old] |= firsts(known[old], span_of(known[old]))
            parts = known[old & near]
        assert parts.tolist() == steps[firsts(steps, span_of(steps)) | near_events(reasons)].tolist()
        assert (~near_events(reasons)[np.isin(steps, parts)]).sum() <= 40 + 32


def test_events_and_what_is_around_them_stay_but_of_a_restless_series_only_the_first(monkeypatch):
    reasons = np.full(2000, None)
    reasons[501:509] = "nonfinite"  # which happened in step 500
    assert np.flatnonzero(near_events(reasons)).tolist() == [*range(492, 517)]
    monkeypatch.setattr(thinned, "_MOST_NOISY", 100)
    reasons[:] = None
    reasons[::40] = "loss"
    assert np.flatnonzero(near_events(reasons)).max() < 300
    reasons[1500] = "lr"
    assert near_events(reasons)[1491:1509].all()


@pytest.mark.parametrize("again", [150, 70], ids=["behind", "before what is thinned"])
def test_a_thinned_run_is_gone_on_with_also_from_an_earlier_step(again, tmp_path):
    folder = write(tmp_path / "run", status="interrupted")
    before = rows(load(folder), range(again))
    write(folder, range(again, 250), status="interrupted")
    recording = load(folder)
    assert_same(rows(recording, before["steps"]["step"][:32]), rows(recording, range(32)))
    steps = recording.steps["step"].tolist()
    assert steps[-40:] == [*range(210, 250)]
    assert set(steps[:-40]) <= {*before["steps"]["step"], *range(again, 250)}
    assert "damage" not in recording.meta
    whole = rows(load(write(tmp_path / "whole", range(250), told={})), steps)
    assert_same(rows(recording), whole)
    write(folder, range(250, 260))
    assert load(folder).steps["step"].tolist()[-10:] == [*range(250, 260)]


def test_of_several_processes_the_same_steps_stay_also_while_one_has_not_thinned_yet(tmp_path):
    two = {"processes": {"world": 2, "data": 2, "recorded": 1}}
    for name, told in (("run", THINNED), ("whole", {})):
        write(tmp_path / name, told=told | two, status="interrupted")
        write(tmp_path / name, told=two, rank=1, status="interrupted")
    recording = load(tmp_path / "run")
    assert recording.steps["step"].tolist() == LEFT
    assert_same(rows(recording), rows(load(tmp_path / "whole"), LEFT))
    thinning.thin(tmp_path / "run", recording.meta["run"], 1, (1, 0))
    assert_same(rows(load(tmp_path / "run")), rows(recording))


@pytest.mark.parametrize("moment", ["before it is said", "before the others are removed"])
def test_a_kill_while_it_is_thinned_leaves_the_one_or_the_other(moment, tmp_path, monkeypatch):
    folder = write(tmp_path / "run", range(70), status="interrupted")
    with monkeypatch.context() as patch:
        patch.setattr(thinning, "WHOLE", 10)  # there is more to thin now
        if moment == "before it is said":
            patch.setattr(thinned.Thinned, "write", lambda *_: 1 / 0)
        sweeps = iter([thinning.sweep, lambda *_: 1 / 0])
        patch.setattr(thinning, "sweep", lambda *asked: next(sweeps)(*asked))
        with pytest.raises(ZeroDivisionError):
            thinning.thin(folder, load(folder).meta["run"], 0, (1, 0))
    left = [*range(70)] if moment == "before it is said" else [*range(32), *range(32, 60, 2), *range(60, 70)]
    assert load(folder).steps["step"].tolist() == left
    write(folder, range(70, 75))
    assert load(folder).steps["step"].tolist()[-5:] == [*range(70, 75)]


def test_a_reader_meanwhile_sees_the_one_or_the_other(tmp_path, monkeypatch):
    write(tmp_path / "run", status="interrupted")
    kept = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    real, run = attempts.read, load(kept).meta["run"]

    def read(*asked, **more):
        found = real(*asked, **more)
        with monkeypatch.context() as patch:
            patch.setattr(attempts, "read", real)
            patch.setattr(thinning, "WHOLE", 10)
            thinning.thin(kept, run, 0, (1, 0))
        monkeypatch.setattr(attempts, "read", real)
        return found

    monkeypatch.setattr(attempts, "read", read)
    recording = load(kept)
    assert "damage" not in recording.meta
    assert recording.meta["thinned"]["before"] == 150
    assert_same(rows(recording), rows(load(tmp_path / "run"), recording.steps["step"]))


def test_what_says_how_it_was_thinned_is_missed_where_it_was_changed_or_is_gone(tmp_path):
    folder = write(tmp_path / "run", status="interrupted")
    told = folder / "segments" / "thinned-r0.json"
    content = told.read_text()
    told.write_text(content.replace('"before": 120', '"before": 130'))
    with pytest.raises(RecordingError, match=r"thinned-r0\.json must say what was thinned"):
        load(folder)
    told.unlink()
    with pytest.raises(RecordingError, match="missing"):
        load(folder)
    told.write_text(content)
    next((folder / "segments").glob("steps-*-thinned.arrows")).unlink()
    with pytest.raises(RecordingError, match=r"steps-r0-a0-p3-thinned\.arrows lacks step 0"):
        load(folder)


def test_after_sigkill_while_it_thins_every_acknowledged_step_that_is_to_stay_is_there(tmp_path):
    with launched(WRITE) as launcher:
        found = [kill_once(launcher, tmp_path / f"thinned{trial}", seed=trial) for trial in range(4)]
    assert [one.lost for one in found] == [0] * 4
    assert all(one.gone_on for one in found)
