import csv
import fcntl
import json
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from analyses import ANALYSES
from gradlens import load
from tests.cli.conftest import SMALL_COMPARISON, read_json, start

LABELS = [
    "pre-ln",
    "post-ln",
    "pre-ln, no warm-up",
    "pre-ln, warm-up",
    "post-ln, no warm-up",
    "post-ln, warm-up",
]


def parquet(folder: Path) -> dict[str, float]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def losses(run: Path) -> list[float]:
    return list(load(run).steps["loss"])


def test_a_comparison_leaves_a_report_findings_tables_and_recordings(finished):
    assert (finished / "compare.pdf").read_bytes().startswith(b"%PDF-")
    findings = json.loads((finished / "findings.json").read_text())["findings"]
    assert {finding["code"] for finding in findings} >= {"GL101", "GL302"}
    tables = {path.stem for path in (finished / "tables").glob("*.csv")}
    # Of two runs, and of what is watched on request.
    assert tables == {"summary", *(analysis.name for analysis in ANALYSES)} - {"parting", "attention"}
    with (finished / "tables" / "summary.csv").open() as file:
        assert [row["recording"] for row in csv.DictReader(file)] == LABELS
    manifest = json.loads((finished / "manifest.json").read_text())
    assert (manifest["kind"], manifest["status"]) == ("compare", "complete")
    assert [load(finished / run).label for run in manifest["runs"]] == LABELS


def test_the_summary_and_the_findings_go_to_stdout_and_the_rest_to_stderr(gradlens, finished):
    result = gradlens("compare", "pre-ln", "post-ln", *SMALL_COMPARISON, "--out", finished)
    assert all(label in result.stdout for label in LABELS)
    assert "GL" in result.stdout
    assert str(finished / "compare.pdf") in result.stderr
    assert "compare.pdf" not in result.stdout


def test_json_is_one_strict_object_on_stdout_and_quiet_leaves_nothing_else(gradlens, finished):
    result = gradlens("compare", "pre-ln", "post-ln", *SMALL_COMPARISON, "--out", finished, "--json", "-q")
    found = read_json(result)
    assert [row["recording"] for row in found["summary"]] == LABELS
    assert {"code", "status", "claim"} <= found["findings"][0].keys()
    assert Path(found["pdf"]).exists()
    assert result.stderr == ""


def test_quiet_still_says_where_the_report_is(gradlens, finished):
    result = gradlens("compare", "pre-ln", "post-ln", *SMALL_COMPARISON, "--out", finished, "-q")
    assert result.stderr.strip() == f"Report: {finished / 'compare.pdf'}"


def test_the_same_command_again_reuses_every_recording_and_writes_the_same_report(gradlens, finished):
    def tables() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (finished / "tables").iterdir()}

    before, first = parquet(finished), tables()
    result = gradlens("compare", "pre-ln", "post-ln", *SMALL_COMPARISON, "--out", finished)
    assert result.stderr.count("recorded before") == len(LABELS)
    assert parquet(finished) == before
    assert tables() == first


def test_a_cell_that_is_missing_is_made_and_the_others_are_reused(gradlens, finished):
    lost = finished / "runs" / "post-ln" / "warm-up"
    expected = losses(lost)
    shutil.rmtree(lost)
    result = gradlens("compare", "pre-ln", "post-ln", *SMALL_COMPARISON, "--out", finished)
    assert result.stderr.count("recorded before") == len(LABELS) - 1
    assert losses(lost) == expected


def test_other_settings_at_out_are_named_and_nothing_there_changes(gradlens, finished):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    options = [*SMALL_COMPARISON, "--out", finished]
    result = gradlens("compare", "pre-ln", "post-ln", *options, "--steps", "9", "--lr", "0.1", "--seeds", "3")
    assert result.exit_code == 2
    for setting in ("steps (was 6, now 9)", "lr (was 0.002, now 0.1)", "seeds (was 2, now 3)", "--out"):
        assert setting in result.stderr
    assert "width" not in result.stderr
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_other_operands_at_out_are_refused(gradlens, finished):
    result = gradlens("compare", "pre-ln", "post-ln/rmsnorm", *SMALL_COMPARISON, "--out", finished)
    assert result.exit_code == 2
    assert "operands (were pre-ln, post-ln; now pre-ln, post-ln/rmsnorm)" in result.stderr


def test_a_comparison_that_another_process_writes_is_left_alone(gradlens, finished):
    with (finished / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = gradlens("compare", "pre-ln", "post-ln", *SMALL_COMPARISON, "--out", finished)
    assert result.exit_code == 2
    assert "another one is writing" in result.stderr


def test_a_folder_of_something_else_is_left_alone(gradlens, folder):
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter1.tex").write_text("years of work")
    result = gradlens("compare", "pre-ln", *SMALL_COMPARISON, "--out", "thesis")
    assert result.exit_code == 2
    assert "chapter1.tex" in result.stderr
    assert [path.name for path in (folder / "thesis").iterdir()] == ["chapter1.tex"]


def test_a_single_recording_is_no_folder_for_a_comparison(gradlens, finished):
    result = gradlens("compare", "pre-ln", *SMALL_COMPARISON, "--out", finished / "runs" / "pre-ln" / "init")
    assert result.exit_code == 2
    assert "single recording" in result.stderr


def test_an_out_that_cannot_be_made_is_said_so(gradlens, folder):
    (folder / "file").write_text("")
    result = gradlens("compare", "pre-ln", *SMALL_COMPARISON, "--out", "file/out")
    assert result.exit_code == 2
    assert "file/out" in result.stderr


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder in which nobody may make one")
def test_where_nothing_can_be_made_no_space_is_asked_for(gradlens):
    result = gradlens("compare", "pre-ln", *SMALL_COMPARISON, "--out", "/proc/run")
    assert result.exit_code == 2
    assert "Choose another --out" in result.stderr
    assert "Free space" not in result.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--lr", "-1"], "'lr' must be a finite number above 0; it is -1.0. Change it; its default is 0.002"),
        (["--warmup", "500"], "'warmup' must be no longer than a run's 6 steps; it is 500"),
    ],
)
def test_an_impossible_setting_is_named_as_it_was_given_with_the_commands_own_default(gradlens, option, said):
    result = gradlens("compare", "pre-ln", *SMALL_COMPARISON, *option)
    assert result.exit_code == 2
    assert said in result.stderr


def test_what_was_measured_at_initialization_is_kept_when_training_is_added(gradlens, folder):
    only = gradlens("compare", "pre-ln", *SMALL_COMPARISON, "--init-only")
    assert only.exit_code == 0
    out = folder / "runs" / "compare-pre-ln"
    assert not (out / "runs" / "pre-ln" / "warm-up").exists()
    both = gradlens("compare", "pre-ln", *SMALL_COMPARISON)
    assert both.stderr.count("recorded before") == 1
    assert (out / "runs" / "pre-ln" / "warm-up").exists()
    assert gradlens("compare", "pre-ln", *SMALL_COMPARISON, "--init-only").exit_code == 2


def test_recordings_are_operands_too(gradlens, finished):
    run = finished / "runs" / "pre-ln" / "init"
    result = gradlens("compare", run, "post-ln", *SMALL_COMPARISON, "--init-only", "--out", "new", "--json")
    assert [row["recording"] for row in read_json(result)["summary"]] == ["pre-ln", "post-ln"]
    again = gradlens("diagnose", "new", "--format", "json")
    assert [row["recording"] for row in read_json(again)["summary"]] == ["pre-ln", "post-ln"]


def test_the_exit_code_follows_the_worst_finding(gradlens, finished):
    findings = json.loads((finished / "findings.json").read_text())["findings"]
    assert "fail" in {finding["status"] for finding in findings}  # six steps teach nothing, and a check says so
    command = ["compare", "pre-ln", "post-ln", *SMALL_COMPARISON, "--out", finished]
    assert gradlens(*command, "--fail-on", "fail").exit_code == 1


def test_a_language_model_of_the_users_is_trained_beside_the_zoo(gradlens, models):
    operands = ["pre-ln", "models.py:language_model"]
    result = gradlens("compare", *operands, *SMALL_COMPARISON, "-m", "width=16", "--out", "o", "--json")
    labels = [row["recording"] for row in read_json(result)["summary"]]
    assert "models.py:language_model, warm-up" in labels
    trained = load(Path("o/runs/models.py-language-model/warm-up"))
    measured = load(Path("o/runs/models.py-language-model/init"))
    assert trained.meta["model"]["parameters"] == measured.meta["model"]["parameters"] == 256 * 16 + 32 + 17 * 256
    assert measured.meta["task"]["name"] == "lm"


@pytest.mark.parametrize("name", ["build", "too_few_logits"])
def test_a_model_that_does_not_fit_the_task_is_measured_only_and_that_is_said(gradlens, models, name):
    result = gradlens("compare", f"models.py:{name}", *SMALL_COMPARISON, "--out", "o", "--json")
    assert [row["measured"] for row in read_json(result)["summary"]] == ["2 seeds"]
    assert result.stderr.count("is measured at initialization only") == 1


def test_a_model_that_was_edited_is_not_mixed_with_its_old_recordings(gradlens, models):
    command = ["compare", "models.py:build", *SMALL_COMPARISON, "--out", "o"]
    assert gradlens(*command).exit_code == 0
    models.write_text(models.read_text().replace("nn.Linear(4, width)", "nn.Linear(4, width, bias=False)"))
    result = gradlens(*command)
    assert result.exit_code == 2
    assert "models.py:build" in result.stderr
    assert "edited" in result.stderr


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


STEPS = 120
ONE_RUN = [*SMALL_COMPARISON, "--steps", STEPS, "--warmup", "0"]


def test_a_killed_comparison_goes_on_and_ends_in_the_same_numbers(gradlens, folder):
    run = Path("runs/pre-ln/no-warm-up")
    process = start("compare", "pre-ln", *ONE_RUN, "--out", "killed")
    wait_for(folder / "killed" / run / "checkpoint.pt")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    survived = losses(folder / "killed" / run)
    assert 0 < len(survived) < STEPS

    result = gradlens("compare", "pre-ln", *ONE_RUN, "--out", "killed")
    assert result.exit_code == 0
    assert result.stderr.count("recorded before") == 1
    assert gradlens("compare", "pre-ln", *ONE_RUN, "--out", "whole").exit_code == 0
    resumed = losses(folder / "killed" / run)
    assert resumed == losses(folder / "whole" / run)
    assert resumed[: len(survived)] == survived


def test_ctrl_c_says_how_to_go_on(folder):
    process = start("compare", "pre-ln", *ONE_RUN, "--out", "stopped")
    wait_for(folder / "stopped" / "runs" / "pre-ln" / "no-warm-up" / "checkpoint.pt")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "safe in stopped; the same command again goes on" in stderr
    assert "Traceback" not in stderr
    assert json.loads((folder / "stopped" / "manifest.json").read_text())["status"] == "interrupted"


def test_a_disk_that_is_full_loses_nothing(gradlens, folder):
    limit = 40_000  # bytes a file: a checkpoint or a table is larger

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start("compare", "pre-ln", *SMALL_COMPARISON, "--width", "32", "--out", "full", preexec_fn=small_files)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in stderr
    assert "Make room" in stderr or "Free space" in stderr
    result = gradlens("compare", "pre-ln", *SMALL_COMPARISON, "--width", "32", "--out", "full")
    assert result.exit_code == 0
    assert "recorded before" in result.stderr


def test_no_normalization_is_a_variant_to_compare_with(gradlens, tmp_path):
    small = [*SMALL_COMPARISON, "--init-only", "--out", tmp_path / "run"]
    result = gradlens("compare", "pre-ln", "pre-ln/none", *small)
    assert "pre-ln/none" in result.stdout
    assert load(tmp_path / "run" / "runs" / "pre-ln-none" / "init").params["grad_norm"].notna().all()
