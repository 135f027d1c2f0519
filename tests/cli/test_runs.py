"""The commands on runs: train, report, diagnose."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

import gradlens as api
from gradlens.recording import SCHEMA_VERSION
from tests.cli.conftest import TINY, read_json

RUN = Path("comparison/runs/pre-ln/init")


def test_train_records_one_run_and_reuses_it(gradlens):
    command = ["train", "post-ln", *TINY, "--steps", "6", "--warmup", "2", "--json"]
    first = read_json(gradlens(*command))
    recording = api.load(first["out"])
    assert recording.meta["variant"] == "post-ln"
    assert recording.steps["lr"].tolist()[:3] == pytest.approx([1e-3, 2e-3, 2e-3])
    changed = Path(first["out"], "steps.parquet").stat().st_mtime_ns
    assert read_json(gradlens(*command)) == first
    assert Path(first["out"], "steps.parquet").stat().st_mtime_ns == changed


def test_train_ends_with_the_tasks_metrics_on_held_out_data(gradlens):
    command = ["train", "pre-ln", *TINY, "--steps", "6", "--evaluate-every"]
    found = read_json(gradlens(*command, "4", "--json", "--out", "run"))["held_out"]
    last = api.load("run").steps.iloc[-1]
    assert found["step"] == last["step"] == 5
    assert found["valid_loss"] == last["valid_loss"]
    assert "Held-out data, after 6 steps:" in gradlens(*command, "4", "--out", "run").stdout
    assert "Held-out" not in gradlens(*command, "0", "--out", "other").stdout


def test_train_refuses_other_settings_in_the_same_folder(gradlens):
    gradlens("train", "pre-ln", *TINY, "--steps", "3")
    result = gradlens("train", "pre-ln", *TINY, "--steps", "4")
    assert result.exit_code == 2
    assert "training.steps is 3, not 4" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models.py:build"], "keyword vocab"),
        (["models.py:too_few_logits"], "does not take the batches"),
        (["pre-ln", "--warmup", "9", "--steps", "3"], "no longer than the run's 3 steps"),
        (["comparison/runs/pre-ln/init"], "is a recording"),
    ],
)
def test_train_says_what_it_cannot_train(gradlens, models, finished, arguments, said):
    result = gradlens("train", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_report_writes_a_pdf_of_several_runs(gradlens, finished, typeset):
    result = gradlens("report", RUN, finished / "runs" / "post-ln" / "init", "--out", "both.pdf")
    assert result.exit_code == 0
    assert Path("both.pdf").read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize(("name", "said"), [("notes.pdf", "is something else"), ("notes.txt", "does not end in .pdf")])
def test_report_replaces_a_report_and_nothing_else(gradlens, finished, name, said):
    Path(name).write_text("mine")
    result = gradlens("report", RUN, "--out", name)
    assert result.exit_code == 2
    assert said in result.stderr
    assert Path(name).read_text() == "mine"


def test_report_writes_a_page_in_place_of_a_pdf_or_beside_it(gradlens, finished):
    assert gradlens("report", RUN, "--html", "new/alone.html").exit_code == 0
    assert Path("new/alone.html").read_bytes().startswith(b"<!doctype html>")
    assert not Path("report.pdf").exists()
    result = gradlens("report", RUN, "--html", "new/alone.html", "--out", "both.pdf")
    assert [line for line in result.stderr.splitlines() if line] == ["Report: both.pdf", "Report: new/alone.html"]
    assert Path("both.pdf").is_file()


def test_compare_writes_a_page_beside_its_folder(gradlens, finished):
    result = gradlens("compare", RUN, finished / "runs" / "post-ln" / "init", "--out", "two", "--html", "two.html")
    assert result.exit_code == 0
    assert "Report: two.html" in result.stderr
    assert json.loads(Path("two/findings.json").read_text())["command"] in Path("two.html").read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [("notes.html", "is something else"), ("notes.htm", "does not end in .html"), (".", "is a directory")],
)
@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_page_takes_the_place_of_a_page_and_of_nothing_else(gradlens, finished, command, name, said):
    if name != ".":
        Path(name).write_text("mine")
    result = gradlens(command, RUN, "--html", name)
    assert result.exit_code == 2
    assert said in result.stderr
    assert name == "." or Path(name).read_text() == "mine"


@pytest.mark.parametrize("ask", [api.compare, lambda runs: api.report(runs, "x.pdf")])
@pytest.mark.parametrize(
    ("given", "hint"), [("runs/mine", "gradlens.load('runs/mine')"), ([3], "a list of recordings")]
)
def test_a_path_in_place_of_a_recording_is_named_with_what_reads_it(ask, given, hint):
    with pytest.raises(api.GradlensError, match="takes recordings, which") as error:
        ask(given)
    assert hint in str(error.value)


def break_manifest(run: Path, **entries: object) -> None:
    path = run / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: run.rename(run.parent / "elsewhere"), "there is none at"),
        (lambda run: (run / "manifest.json").unlink(), "Is it a gradlens run?"),
        (lambda run: (run / "manifest.json").write_text('{"sche'), "cannot be read as one"),
        (lambda run: (run / "norms.parquet").write_bytes(b"PAR1 cut off"), "norms.parquet"),
        (lambda run: break_manifest(run, schema=SCHEMA_VERSION + 1), "newer gradlens"),
    ],
    ids=["missing", "foreign", "damaged", "truncated", "newer"],
)
@pytest.mark.parametrize("command", ["report", "diagnose", "compare"])
def test_a_run_that_cannot_be_read_is_named_with_what_to_do(gradlens, finished, command, damage, said):
    damage(RUN)
    result = gradlens(command, RUN)
    assert result.exit_code == 2
    assert said in result.stderr
    assert str(RUN) in result.stderr


def test_an_empty_recording_is_nothing_to_look_at(gradlens):
    import torch

    with api.attach(torch.nn.LayerNorm(3), out="empty"):
        pass
    for command in ("report", "diagnose"):
        result = gradlens(command, "empty")
        assert result.exit_code == 5
        assert "lens.step()" in result.stderr


def test_diagnose_fails_a_gate_only_on_findings_that_bad(gradlens, finished):
    trained = gradlens("diagnose", finished)
    assert trained.exit_code == 1
    assert "fail" in trained.stdout
    assert gradlens("diagnose", RUN).exit_code == 0


def test_diagnose_speaks_json_and_junit(gradlens, finished):
    findings = read_json(gradlens("diagnose", finished, "--format", "json"))["findings"]
    suite = ElementTree.fromstring(gradlens("diagnose", finished, "--format", "junit").stdout)
    assert len(suite.findall("testcase")) == int(suite.get("tests")) == len(findings)
    assert len(suite.findall("testcase/failure")) == sum(f["status"] == "fail" for f in findings)
    undecided = sum(f["status"] in ("inconclusive", "not applicable") for f in findings)
    assert len(suite.findall("testcase/skipped")) == int(suite.get("skipped")) == undecided
