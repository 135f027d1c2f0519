"""``gradlens reproduce``: a study as small as can be, from the first run to the report."""

import dataclasses
import json
from itertools import pairwise

import pytest

from gradlens import load
from gradlens.cli.progress import TimeLeft, duration
from gradlens.lab.runs.runner import Event
from gradlens.lab.studies import STUDIES
from gradlens.lab.studies.cell import TrainedAtLimit, Untrained
from gradlens.lab.studies.study import Budget
from gradlens.lab.studies.xu2019 import Setting, cells
from gradlens.recording import Recording
from tests.cli.conftest import read_json

TINY = Setting(
    arrangement="pre-ln",
    size={"width": 16, "heads": 2, "blocks": 2},
    training={"steps": 6, "batch_size": 2, "length": 16, "evaluate_every": 3, "evaluation_batches": 1},
    seconds=1,
)
NORMS = ("none", "layernorm", "adanorm")


@pytest.fixture
def tiny(monkeypatch):
    study = dataclasses.replace(
        STUDIES["xu2019"],
        parts=("lm",),
        budgets={"small": Budget(about="a test", cells=cells({"lm": TINY}, seeds=2, norms=NORMS))},
    )
    monkeypatch.setattr("gradlens.lab.studies.xu2019.STUDY", study)
    return study


def reproduce(gradlens, *arguments):
    return gradlens("reproduce", "xu2019", "--jobs", "1", "--device", "cpu", *arguments)


def test_a_study_leaves_a_report_findings_tables_and_recordings_and_goes_on(gradlens, tiny, folder, typeset):
    result = reproduce(gradlens, "--seeds", "1", "--out", "r")
    assert (folder / "r/xu2019.pdf").read_bytes().startswith(b"%PDF-")
    found = json.loads((folder / "r/findings.json").read_text())
    assert found["heading"][0] == tiny.title
    assert {finding["code"] for finding in found["findings"]} >= {"GL501", "GL503", "GL509"}
    assert (folder / "r/tables/xu2019_scores.csv").exists()
    assert "LayerNorm" in result.stdout
    assert "3/3  lm, pre-ln/adanorm, seed 0" in result.stderr
    before = (folder / "r/runs/lm/adanorm/seed-0/manifest.json").stat().st_mtime_ns
    more = reproduce(gradlens, "--out", "r")
    assert more.stderr.count("recorded before") == 3
    assert (folder / "r/runs/lm/adanorm/seed-0/manifest.json").stat().st_mtime_ns == before
    manifest = json.loads((folder / "r/manifest.json").read_text())
    assert (manifest["kind"], manifest["status"]) == ("reproduce", "complete")
    assert [load(folder / "r" / run).meta["seeds"] for run in manifest["runs"]] == [[0]] * 3 + [[1]] * 3
    factor = load(folder / "r/runs/lm/adanorm/seed-0").activations
    assert factor["site"].str.endswith(".factor").any()
    # Its runs can be looked at as any others.
    assert gradlens("report", "r", "--out", "all.pdf").exit_code == 0
    assert gradlens("compare", "pre-ln", "--init-only", "--seeds", "2", "--out", "r").exit_code == 2


def test_json_is_one_object_with_the_table_and_the_verdicts(gradlens, tiny):
    found = read_json(reproduce(gradlens, "--seeds", "1", "--json", "-q"))
    assert [row["norm"] for row in found["summary"]][:1] == ["w/o Norm"]
    verdicts = {finding["code"]: finding["status"] for finding in found["findings"]}
    assert verdicts["GL506"] == "inconclusive"  # one seed decides nothing
    assert found["pdf"].endswith("xu2019-small/xu2019.pdf")


SIZE = {"width": 16, "heads": 2, "blocks": 2}
PARTS = (
    Untrained(
        key="initialization/decoder/pre-ln/2",
        label="decoder, pre-ln, 2 blocks",
        part="initialization",
        task="lm",
        variant="pre-ln",
        size=SIZE,
        seconds=1,
        seeds=2,
        batch_size=2,
        length=16,
        probes=("sharpness",),
    ),
    TrainedAtLimit(
        key="limits/pre-ln/sgd/edge-x0.5",
        label="pre-ln, sgd, 0.5 x the limit by edge",
        part="limits",
        task="lm",
        variant="pre-ln",
        size=SIZE,
        seconds=1,
        training={**TINY.training, "optimizer": "sgd"},
        seeds=1,
        by="edge",
        factor=0.5,
    ),
)


def test_a_study_measures_and_trains_part_by_part(gradlens, monkeypatch, folder, typeset):
    study = dataclasses.replace(
        STUDIES["xiong2020"],
        parts=("initialization", "limits"),
        budgets={"small": Budget(about="a test", cells=PARTS)},
    )
    monkeypatch.setattr("gradlens.lab.studies.xiong2020.STUDY", study)
    command = ("reproduce", "xiong2020", "--jobs", "1", "--device", "cpu", "--out", "r", "--json")
    first = gradlens(*command, "--parts", "initialization")
    assert "1/1  decoder, pre-ln, 2 blocks" in first.stderr
    everything = gradlens(*command, "--seeds", "2")
    assert everything.stderr.count("recorded before") == 1
    kinds = [
        load(folder / "r" / run).meta["kind"] for run in json.loads((folder / "r/manifest.json").read_text())["runs"]
    ]
    assert kinds == ["init", "training", "training"]
    assert read_json(everything)["pdf"].endswith("r/xiong2020.pdf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("xiong2020", "--parts", "warmup"), "There is no part of xiong2020 named 'warmup'. Did you mean warm-up?"),
        (("xu2020",), "There is no study named 'xu2020'. Did you mean xu2019 or xiong2020?"),
        (("xu2019", "--budget", "medum"), "There is no budget named 'medum'. Did you mean medium?"),
        (("xu2019", "--tasks", "lm,imags"), "There is no task of xu2019 named 'imags'. Did you mean images?"),
        (("xu2019", "--tasks", "lm", "--device", "gpu"), "gpu"),
    ],
)
def test_what_cannot_be_run_is_a_message_and_code_2(gradlens, arguments, message, folder):
    result = gradlens("reproduce", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (folder / "runs").exists()


def event(job, what, done=0, seconds=0.0):
    recording = Recording.from_tables({"status": "complete"}) if what == "finished" else None
    return Event(what=what, job=job, done=done, recording=recording, seconds=seconds)


def jobs_of(seconds):
    planned = STUDIES["xu2019"].jobs("small", tuple(seconds), seeds=1)
    return [dataclasses.replace(job, seconds=seconds[job.task]) for job in planned]


def test_the_time_left_is_what_is_expected_corrected_by_what_was_seen():
    jobs = jobs_of({"lm": 10.0, "images": 2.0})
    lm, images = jobs[:7], jobs[7:]
    left = TimeLeft(jobs)
    assert left.seconds() == pytest.approx(7 * 10 + 7 * 2)
    left.note(event(lm[0], "started"))
    left.note(event(lm[1], "started"))
    assert left.seconds() == pytest.approx((7 * 10 + 7 * 2) / 2)  # two at a time
    left.note(event(lm[0], "finished", seconds=20.0))
    once = left.seconds()
    assert (6 * 10 + 7 * 2) / 2 < once < (6 * 20 + 7 * 4) / 2  # twice as slow as planned, but one job says little
    left.note(event(lm[0], "progress", done=1))  # said before its end and heard after
    assert left.seconds() == once
    for job in (*lm[1:], *images):
        left.note(event(job, "reused"))
    assert left.seconds() == 0


def test_the_time_left_neither_jumps_nor_errs_where_tasks_are_slower_than_planned_by_different_factors():
    slower = {"lm": 1.5, "images": 3.0}
    jobs = jobs_of({"lm": 10.0, "images": 2.0})
    left, waiting, running, now, lefts = TimeLeft(jobs), list(jobs), {}, 0.0, []
    while waiting or running:
        while waiting and len(running) < 2:
            running[now + waiting[0].seconds * slower[waiting[0].task]] = waiting[0]
            now += 0.01  # no two end at once
            left.note(event(waiting.pop(0), "started"))
        now = min(running)
        job = running.pop(now)
        left.note(event(job, "finished", seconds=job.seconds * slower[job.task]))
        for end, other in running.items():
            done = 1 - (end - now) / (other.seconds * slower[other.task])
            left.note(event(other, "progress", done=done * other.total))
        lefts.append((left.seconds(), now))
    assert lefts.pop() == (0, now)
    assert all(0.5 < said / (now - then) < 1.5 for said, then in lefts)
    assert all(after[0] < 1.1 * before[0] for before, after in pairwise(lefts))


def test_times_read_as_a_clock_does():
    assert [duration(seconds) for seconds in (0, 7.4, 75, 3725)] == ["", "0:07", "1:15", "1:02:05"]
