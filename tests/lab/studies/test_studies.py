"""Every study: its budgets can be built, its jobs are what their keys say, a part is what was asked for."""

import pytest

from gradlens.analysis.discover import of_paper, papers
from gradlens.errors import GradlensError, UnknownNameError
from gradlens.lab.models import parse_variant
from gradlens.lab.runs.jobs import Run
from gradlens.lab.studies import STUDIES
from gradlens.lab.studies.xu2019 import NORMS
from gradlens.lab.tasks import TASKS

every_study = pytest.mark.parametrize("study", [STUDIES[name] for name in STUDIES], ids=list(STUDIES))


def runs_of(jobs):
    return [job for job in jobs if isinstance(job, Run)]


@every_study
def test_every_study_has_its_questions_and_the_other_way_round(study):
    assert of_paper(study.name)
    assert set(papers()) == set(STUDIES)


@every_study
def test_every_name_in_a_study_is_known(study):
    assert study is STUDIES[study.name]
    assert {"small", "medium", "paper"} == set(study.budgets)
    for budget in study.budgets.values():
        assert set(study.parts) <= set(budget.parts)
        for cell in budget.cells:
            assert cell.task in TASKS
            assert parse_variant(cell.variant)


@every_study
def test_no_two_jobs_share_a_folder_or_a_label(study):
    for budget in study.budgets:
        jobs = study.jobs(budget)
        assert len({job.key for job in jobs}) == len({job.label for job in jobs}) == len(jobs)
        assert all(job.total >= 1 and job.seconds > 0 for job in jobs)


@every_study
def test_the_last_step_and_some_hundred_others_are_recorded(study):
    for run in runs_of(study.jobs("medium")):
        assert 50 <= run.config.steps / run.config.every <= 200
        assert run.config.evaluate_every <= run.config.steps


@every_study
def test_a_grid_cut_short_has_whole_seeds(study):
    seeds = [run.config.seed for run in runs_of(study.jobs("medium"))]
    assert seeds == sorted(seeds)


def test_runs_of_one_task_and_seed_differ_in_the_norm_alone():
    study = STUDIES["xu2019"]
    for budget in study.budgets:
        for task in study.parts:
            own = study.jobs(budget, [task])
            assert len({str(run.size) for run in own}) == 1
            for seed in {run.config.seed for run in own}:
                paired = [run for run in own if run.config.seed == seed]
                assert len({str(run.config) for run in paired}) == 1
                assert len({run.variant for run in paired}) == len(paired) == len(NORMS)


def test_a_part_of_a_study_is_what_was_asked_for():
    study = STUDIES["xu2019"]
    runs = study.jobs("small", ("lm", "images"), seeds=3)
    assert {run.task for run in runs} == {"lm", "images"}
    assert {run.config.seed for run in runs} == {0, 1, 2}
    assert {run.task for run in study.jobs("small", ("translation-de-en",))} == {"translation-de-en"}


@pytest.mark.parametrize(
    ("study", "asked", "error", "message"),
    [
        ("xu2019", {"budget": "medum"}, UnknownNameError, "Did you mean medium"),
        ("xu2019", {"parts": ("imags",)}, UnknownNameError, "no task of xu2019 named 'imags'. Did you mean images"),
        ("xu2019", {"parts": ("lm", "lm")}, GradlensError, "Tasks must differ; got lm, lm"),
        ("xu2019", {"seeds": 0}, GradlensError, "needs 1 seed or more; got 0"),
        ("xiong2020", {"parts": ("warmup",)}, UnknownNameError, "no part of xiong2020 named 'warmup'. .* warm-up"),
    ],
)
def test_what_cannot_be_run_is_said(study, asked, error, message):
    with pytest.raises(error, match=message):
        STUDIES[study].jobs(**{"budget": "small", **asked})


def test_missing_data_is_said_for_all_tasks_at_once_before_anything_is_trained(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADLENS_DATA", str(tmp_path))
    study = STUDIES["xu2019"]
    with pytest.raises(GradlensError) as caught:
        study.check(study.jobs("small"))
    for command in ("gradlens data fetch mnist", "gradlens data fetch movie-reviews", "libreoffice-help"):
        assert command in str(caught.value)
    assert "lm:" not in str(caught.value)
