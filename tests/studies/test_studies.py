"""Every study: its budgets can be built, its runs differ in nothing but what they are compared in."""

import pytest

from gradlens.analysis.discover import of_paper, papers
from gradlens.errors import GradlensError, UnknownNameError
from gradlens.norms import NORMS
from gradlens.studies import STUDIES
from gradlens.tasks import TASKS

every_study = pytest.mark.parametrize("study", [STUDIES[name] for name in STUDIES], ids=list(STUDIES))


@every_study
def test_every_study_has_its_questions_and_the_other_way_round(study):
    assert of_paper(study.name)
    assert set(papers()) == set(STUDIES)


@every_study
def test_every_name_in_a_study_is_known(study):
    assert study is STUDIES[study.name]
    assert set(study.norms) <= set(NORMS)
    assert {"small", "medium", "paper"} == set(study.budgets)
    for budget in study.budgets.values():
        assert set(study.tasks) <= set(budget.settings) <= set(TASKS)
        assert budget.seeds >= 2


@every_study
def test_runs_of_one_task_and_seed_differ_in_the_norm_alone(study):
    for budget in study.budgets:
        runs = study.runs(budget)
        assert len(runs) == len(study.tasks) * len(study.norms) * study.budgets[budget].seeds
        assert len({run.key for run in runs}) == len({run.label for run in runs}) == len(runs)
        for task in study.tasks:
            own = [run for run in runs if run.task == task]
            assert len({str(run.size) for run in own}) == 1
            for seed in {run.config.seed for run in own}:
                paired = [run for run in own if run.config.seed == seed]
                assert len({str(run.config) for run in paired}) == 1
                assert len({run.variant for run in paired}) == len(study.norms)


@every_study
def test_the_last_step_and_some_hundred_others_are_recorded(study):
    for run in study.runs("medium"):
        assert 50 <= run.config.steps / run.config.every <= 200
        assert run.config.evaluate_every <= run.config.steps


def test_a_grid_cut_short_has_whole_seeds():
    seeds = [run.config.seed for run in STUDIES["xu2019"].runs("medium")]
    assert seeds == sorted(seeds)


def test_a_part_of_a_study_is_what_was_asked_for():
    study = STUDIES["xu2019"]
    runs = study.runs("small", tasks=("lm", "images"), seeds=3)
    assert {run.task for run in runs} == {"lm", "images"}
    assert {run.config.seed for run in runs} == {0, 1, 2}
    assert {run.task for run in study.runs("small", tasks=("translation-de-en",))} == {"translation-de-en"}


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"budget": "medum"}, UnknownNameError, "Did you mean medium"),
        ({"tasks": ("imags",)}, UnknownNameError, "Did you mean images"),
        ({"tasks": ("lm", "lm")}, GradlensError, "Tasks must differ; got lm, lm"),
        ({"seeds": 0}, GradlensError, "needs 1 seed or more; got 0"),
    ],
)
def test_what_cannot_be_run_is_said(asked, error, message):
    with pytest.raises(error, match=message):
        STUDIES["xu2019"].runs(**{"budget": "small", **asked})


def test_missing_data_is_said_for_all_tasks_at_once_before_anything_is_trained(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADLENS_DATA", str(tmp_path))
    study = STUDIES["xu2019"]
    with pytest.raises(GradlensError) as caught:
        study.check(study.runs("small"))
    for command in ("gradlens data fetch mnist", "gradlens data fetch movie-reviews", "libreoffice-help"):
        assert command in str(caught.value)
    assert "lm:" not in str(caught.value)
