"""Our table beside the paper's: what its cells say, what diverged, and whether the tasks are real work."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

from analyses.papers.xu2019.final_scores import scored
from analyses.papers.xu2019.metrics import METRICS
from analyses.papers.xu2019.runs import NORMS
from analyses.papers.xu2019.scores import ANALYSIS, published
from analyses.tables import COLUMNS, pick
from gradlens.analysis import Finding
from gradlens.analysis.figures import draw
from gradlens.recording import Recording
from tests.analyses.pictures import faults, pixels
from tests.analyses.xu2019.planted_scores import TASKS, grid, run

#: Typed from the poster once more, by column.
POSTER = {
    "En-De": ("Diverge", "Diverge", "28.3", "28.4", "28.5"),
    "De-En": ("34.0", "33.9", "35.5", "35.5", "35.6"),
    "En-Vi": ("28.4", "27.7", "31.2", "31.6", "31.4"),
    "Enwiki8": ("1.04", "1.12", "1.07", "1.07", "1.07"),
    "RT": ("76.85", "76.40", "77.21", "76.66", "77.50"),
    "SST5": ("38.55", "40.04", "39.23", "40.54", "40.54"),
    "MNIST": ("99.14", "99.10", "99.13", "99.09", "99.35"),
    "PTB": ("88.31", "89.79", "89.12", "89.19", "89.23"),
}
NAMES = ("none", "detachnorm", "layernorm", "layernorm-simple", "adanorm")


def shown(recordings: list[Recording], begins: str = "Our scores") -> pd.DataFrame:
    assert ANALYSIS.show is not None
    tables = ANALYSIS.show(ANALYSIS.compute(recordings))
    (table,) = (table for caption, table in tables.items() if caption.startswith(begins))
    return table.set_index(table.columns[0])


def judged(recordings: list[Recording]) -> dict[str, Finding]:
    return {f.subject: f for f in ANALYSIS.judge(ANALYSIS.compute(recordings))}


def images(*accuracies: float | None, norm: str = "layernorm") -> list[Recording]:
    """Runs of images with these accuracies; None is one that diverged at step 41 + seed."""
    return [
        run("images", norm, seed, diverged_at=41 + seed) if a is None else _with(run("images", norm, seed), a)
        for seed, a in enumerate(accuracies)
    ]


def _with(recording: Recording, accuracy: float) -> Recording:
    steps = recording.steps
    steps.loc[steps["step"] == 99, "accuracy"] = accuracy
    return Recording.from_tables(recording.meta, steps=steps)


def test_the_published_table_is_the_posters() -> None:
    table = published()
    for column, values in POSTER.items():
        own = table[table["column"] == column]
        assert dict(zip(own["norm"], own["value"], strict=True)) == dict(zip(NAMES, values, strict=True))
    assert len(table) == 40
    assert set(table["task"]) - {""} == set(METRICS)


def test_the_papers_table_is_printed_as_published_in_the_order_of_ours() -> None:
    ours, theirs = shown(grid()), shown(grid(), "The paper's scores")
    assert list(ours.index) == list(theirs.index) == list(NORMS.values())
    for column in theirs:
        values = POSTER[str(column).split()[0]]
        assert dict(zip(NAMES, values, strict=True)) == {n: theirs.loc[NORMS[n], column] for n in NAMES}
        assert set(theirs.loc[[NORMS["detachnorm-mean"], NORMS["detachnorm-variance"]], column]) == {"–"}


def test_a_cell_is_the_mean_and_half_of_its_interval_in_per_cent() -> None:
    cell = shown(images(0.97, 0.98, 0.99)).loc["LayerNorm", "images % (+)"]
    half = stdtrit(2, 0.975) * 1.0 / np.sqrt(3)
    assert cell == f"98.00 ± {half:.2f}"


def test_one_seed_has_no_interval() -> None:
    assert shown(images(0.97)).iloc[:, 0]["LayerNorm"] == "97.00"


def test_divergences_are_shown_with_their_first_step_or_their_number() -> None:
    column = shown(images(None, None) + images(0.97, None, 0.99, norm="none")).iloc[:, 0]
    assert column["LayerNorm"] == "diverged (step 41)"
    assert column["w/o Norm"] == "98.00 (1 of 3 diverged)"
    assert column["AdaNorm"] == "–"
    losses = shown(images(None, None), "Training loss").iloc[:, 0]
    assert losses["LayerNorm"] == "diverged"


def test_a_run_that_diverged_has_no_score_even_if_it_was_evaluated_before() -> None:
    late = run("images", "layernorm", diverged_at=80)
    assert late.steps["accuracy"].notna().any()
    assert scored([late])["score"].isna().all()


def test_the_score_is_the_last_evaluation_and_the_training_loss_the_last_tenth() -> None:
    recording = run("lm", "layernorm", 1)
    steps = recording.steps
    steps["loss"] = np.where(steps["step"] >= 90, 1.0, 5.0)
    (row,) = scored([Recording.from_tables(recording.meta, steps=steps)]).to_dict("records")
    assert row["loss"] == 1.0
    assert row["score"] == steps["bits_per_byte"].dropna().iloc[-1]
    assert row["share"] == row["score"] / 5.0


def test_heads_name_metric_and_direction_and_tables_fit_the_page() -> None:
    tasks = [*TASKS, "translation-de-en", "translation-en-vi"]
    assert ANALYSIS.show is not None
    tables = ANALYSIS.show(ANALYSIS.compute(grid(tasks=tasks, seeds=1)))
    heads = [head for table in tables.values() for head in table.columns]
    assert {"lm BPB (−)", "parsing LAS (+)", "images % (+)", "translation (−)", "BLEU (+)"} <= set(heads)
    assert {"translation-de-en (−)", "de-en BLEU (+)"} <= set(heads)
    assert "translation, held-out loss in nats per piece; translation, BLEU; " in next(iter(tables))
    for caption, table in tables.items():
        assert caption.endswith(".")
        assert len(table.columns) <= 8
    columns = [head for caption, table in tables.items() if "Our scores" in caption for head in table.columns[1:]]
    assert len(columns) == len(set(columns)) == 10
    assert sum("Our scores" in caption for caption in ANALYSIS.show(ANALYSIS.compute(grid()))) == 1


def test_settings_are_told_and_unfinished_runs_are_counted() -> None:
    recordings = [*grid(tasks=["lm"]), run("lm", "layernorm", 9, status="running")]
    assert list(shown(recordings, "What was trained").loc["lm"]) == ["12", "100", "3"]
    assert ANALYSIS.show is not None
    assert "1 unfinished run is left out." in next(iter(ANALYSIS.show(ANALYSIS.compute(recordings))))


def test_the_table_is_tidy_and_repeats_itself() -> None:
    recordings = grid()
    table = ANALYSIS.compute(recordings)
    assert tuple(table.columns) == COLUMNS
    pd.testing.assert_frame_equal(table, ANALYSIS.compute(recordings))
    assert set(pick(table, panel="lm")["quantity"]) >= {"bits_per_byte", "share of unigram entropy", "loss"}


def test_tasks_that_are_learned_are_real_work() -> None:
    found = judged(grid())
    assert {task: finding.status for task, finding in found.items() if task} == {
        "translation": "not applicable", "lm": "pass", "sentences": "pass", "images": "pass", "parsing": "pass",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("better", "status", "where"),
    [(0.5, "warn", "5 of 5 tasks (translation, lm, sentences, images and parsing)."), (-0.5, "pass", "0 of 5 tasks.")],
)
def test_where_no_norm_at_all_is_best_it_is_said(better: float, status: str, where: str) -> None:
    finding = judged(grid({"none": {"better": better}}))[""]
    assert (finding.code, finding.status) == ("GL514", status)
    assert finding.claim.endswith(f"scores best on {where}")


def test_without_a_run_that_has_no_norm_nobody_can_tell() -> None:
    assert judged(grid(norms=[norm for norm in NORMS if norm != "none"]))[""].status == "not applicable"


@pytest.mark.parametrize("task", ["lm", "sentences", "images", "parsing"])
def test_a_task_that_is_not_learned_asks_for_a_larger_budget(task: str) -> None:
    finding = judged(grid({"layernorm": {"better": -0.6}}))[task]
    assert finding.status == "warn"
    assert "--budget" in finding.remedies[0]
    assert judged(grid({"adanorm": {"better": -0.6}}))[task].status == "pass"  # LayerNorm alone is asked


def test_a_layernorm_that_diverges_is_no_level() -> None:
    assert judged(images(None, None))["images"].status == "warn"
    some = judged(images(0.99, None, 0.99))["images"]
    assert (some.status, some.low) == ("warn", None)
    assert "1 of 3 runs diverged" in some.claim
    assert judged(images(0.99, norm="adanorm"))["images"].status == "not applicable"


@pytest.mark.parametrize("recordings", [[], [Recording.from_tables({"kind": "training"})]], ids=["none", "empty"])
def test_without_a_run_one_finding_says_so(recordings: list[Recording]) -> None:
    table = ANALYSIS.compute(recordings)
    assert [finding.status for finding in ANALYSIS.judge(table)] == ["not applicable"]
    assert ANALYSIS.show is not None
    assert ANALYSIS.show(table) == {}


GRIDS = {
    "all": grid(),
    "divergences": grid({"none": {"diverged_at": 4}, "images/detachnorm/1": {"diverged_at": 9}}),
    "everything diverged": grid({norm: {"diverged_at": 4} for norm in NORMS}, tasks=["lm", "images"]),
    "one": [run("parsing", "adanorm")],
    "seven tasks": grid(tasks=[*TASKS, "translation-de-en", "translation-en-vi"]),
    "nothing": [],
}


@pytest.mark.parametrize("recordings", GRIDS.values(), ids=GRIDS)
def test_the_figure_cuts_no_text_and_is_drawn_from_the_table(recordings: list[Recording], tmp_path: Path) -> None:
    table = ANALYSIS.compute(recordings)
    table.to_parquet(tmp_path / "table.parquet")
    again = pd.read_parquet(tmp_path / "table.parquet")
    assert faults(draw(ANALYSIS, table)) == []
    assert pixels(draw(ANALYSIS, table)) == pixels(draw(ANALYSIS, again))


def test_the_figure_names_what_diverged() -> None:
    figure = draw(ANALYSIS, ANALYSIS.compute(GRIDS["divergences"]))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts.count("diverged") == len(TASKS)
    assert texts.count("1 of 3 diverged") == 1
