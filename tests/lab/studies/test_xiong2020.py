"""The study of Xiong et al. 2020: what its runs differ in, and the keys that its analyses are asked of."""

import pytest

from gradlens.lab.studies import STUDIES

STUDY = STUDIES["xiong2020"]
BUDGETS = ("small", "medium", "paper")


def keys(part):
    return {job.key for job in STUDY.jobs("medium", [part])}


def test_the_depths_of_figure_3_and_deeper_are_measured_with_ten_seeds():
    measured = [job for job in STUDY.jobs("medium", ["initialization"]) if "/encoder-decoder/" in job.key]
    for variant in ("post-ln", "pre-ln"):
        depths = [job.size["blocks"] for job in measured if job.variant == variant]
        assert depths == [6, 8, 10, 12, 14, 24, 32, 48, 64]
    assert {job.total for job in measured} == {10}
    assert {job.probes for job in measured} == {("concentration",)}


def test_the_encoder_of_theorem_1_has_square_matrices():
    for job in STUDY.jobs("medium", ["initialization"]):
        if "/encoder/" in job.key:
            assert job.size["kind"] == "encoder"
            assert job.size["ffn"] == job.size["width"]


@pytest.mark.parametrize("budget", BUDGETS)
def test_runs_with_and_without_warm_up_differ_in_nothing_else(budget):
    groups = {}
    for run in STUDY.jobs(budget, ["warm-up"]):
        config = run.config.to_dict()
        warmup = config.pop("warmup")
        optimizer, lr = run.key.split("/")[3:5]
        key = (run.task, run.variant, optimizer, lr, run.config.seed)
        groups.setdefault(key, []).append((warmup, str(config), run.size))
    for runs in groups.values():
        assert len({config for _, config, _ in runs}) == len({str(size) for _, _, size in runs}) == 1
        lengths = {warmup for warmup, _, _ in runs}
        assert 0 in lengths
        assert len(lengths) == len(runs) >= 2


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_keys_say_what_the_runs_are(budget):
    for run in STUDY.jobs(budget, ["warm-up"]):
        _, task, variant, optimizer, lr, warmup, seed = run.key.split("/")
        config = run.config
        assert (task, variant, optimizer) == (run.task, run.variant, config.optimizer)
        assert seed == f"seed-{config.seed}"
        assert float(lr.removeprefix("lr-")) == config.lr
        assert int(warmup.removeprefix("warm-up-")) == config.warmup
    for run in STUDY.jobs(budget, ["limits"]):
        _, variant, optimizer, multiple, _ = run.key.split("/")
        by, factor = multiple.split("-x")
        assert (variant, by, float(factor)) == (run.variant, run.by, run.factor)
        assert (optimizer == "momentum") == (run.config.momentum > 0)


def test_both_sides_of_the_predicted_limit_are_tried_and_the_same_for_both_predictions():
    assert {"limits/post-ln/adam/edge-x0.5/seed-0", "limits/pre-ln/momentum/trial-x8/seed-1"} <= keys("limits")
    for budget in BUDGETS:
        tried = {by: set() for by in ("edge", "trial")}
        for run in STUDY.jobs(budget, ["limits"]):
            tried[run.by].add((run.variant, run.factor, str(run.config)))
        assert tried["edge"] == tried["trial"] != set()


def test_adam_has_the_papers_two_learning_rates_and_three_warm_ups():
    adam = {tuple(key.split("/")[4:6]) for key in keys("warm-up") if "/translation/post-ln/adam/" in key}
    assert {lr for lr, _ in adam} == {"lr-0.0005", "lr-0.001"}
    assert len({warmup for _, warmup in adam}) == 3
    assert len(adam) == 6


def test_more_seeds_add_training_runs_and_leave_the_measurements():
    few, more = STUDY.jobs("small"), STUDY.jobs("small", seeds=4)
    assert {job.key for job in few} < {job.key for job in more}
    before = {job.key: job for job in few}
    assert all(before[job.key] == job for job in more if job.key in before)
