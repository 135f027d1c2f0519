"""The first page of a reproduction, and a report on more recordings than anybody reads one by one."""

import fitz
import pandas as pd

from gradlens.analysis import Analysis, Finding, compare
from gradlens.recording import Recording
from gradlens.reporting import Cover
from gradlens.reporting.document import document
from gradlens.reporting.pdf import typeset
from gradlens.reporting.record import whose
from gradlens.reporting.text import summary_text
from tests.reporting.conftest import MODEL, TASK, make_recording

STATUSES = {"GL901": "pass", "GL902": "fail", "GL903": "inconclusive", "GL904": "pass"}
TITLES = {code: f"Claim {code[-1]} holds" for code in STATUSES}


def grid(tasks=("lm", "images", "parsing"), norms=("none", "layernorm", "adanorm"), seeds=(0, 1, 2)):
    return [
        make_recording(
            f"{task}, {norm}, seed {seed}",
            steps=3,
            variant=norm,
            status="diverged" if (task, norm, seed) == ("lm", "none", 1) else "complete",
            seeds=[seed],
            task=TASK | {"name": task},
            model=MODEL | {"norm": norm},
        )
        for task in tasks
        for norm in norms
        for seed in seeds
    ]


def question(name, *, judge, show=None):
    return Analysis(
        name=name,
        title=name.capitalize(),
        question="Is it so?",
        reading="Read it.",
        needs={"norms": ("step",)},
        compute=lambda recordings: pd.DataFrame({"x": [1.0, 2.0]}),
        judge=judge,
        show=show,
        codes={code: f"{title}. More about it." for code, title in TITLES.items()} if judge is claims else {},
    )


def claims(_table):
    return [
        Finding(code=code, status=status, claim=f"It is {status} on 3 of 5 tasks.", analysis="paper_claims")
        for code, status in STATUSES.items()
    ]


TABLE = pd.DataFrame({"norm": ["LayerNorm", "w/o Norm"], "lm BPB (−)": ["2.10 ± 0.02", "diverged (step 7)"]})
QUESTIONS = (
    question("paper_scores", judge=lambda table: [], show=lambda table: {"Ours.": TABLE}),
    question("paper_claims", judge=claims),
)


def covered(recordings):
    comparison = compare(recordings, QUESTIONS)
    return comparison, Cover.of_study("paper", "A Paper on Norms", "Somebody 2019", "small (a look)", comparison)


def test_the_first_page_has_the_papers_name_what_became_of_each_claim_and_the_table_of_results():
    comparison, cover = covered(grid())
    page = fitz.open(stream=typeset(comparison, None, cover))[0].get_text()
    for text in ("A Paper on Norms", "Somebody 2019", "27 runs", "1 of them diverged", "BPB (−)", "2.10 ± 0.02"):
        assert text in page
    said = " ".join(cover.verdict)
    assert "Reproduced: Claim 1 holds; Claim 4 holds." in said
    assert "Not reproduced: Claim 2 holds." in said
    assert "Undecided with the seeds at hand: Claim 3 holds." in said


def test_the_table_is_the_first_that_a_section_shows_and_there_may_be_none():
    """As where parts of a study were run: its first question has then nothing to show."""
    silent = question("paper_silent", judge=lambda table: [])
    comparison = compare(grid(), (silent, *QUESTIONS))
    pd.testing.assert_frame_equal(Cover.of_study("paper", "A", "B", "small", comparison).table, TABLE)
    without = compare(grid(), (silent,))
    cover = Cover.of_study("paper", "A Paper on Norms", "B", "small", without)
    assert summary_text(without, cover) == ""
    assert "A Paper on Norms" in fitz.open(stream=typeset(without, None, cover))[0].get_text()


def test_what_was_only_measured_is_not_said_to_be_trained():
    measured = [make_recording(f"{name}, init", kind="init", variant=name, steps=5) for name in ("pre-ln", "post-ln")]
    _, cover = covered(measured)
    assert cover.verdict[0] == "2 arrangements were measured at initialization: 2 networks, 10 seeds."
    _, both = covered([*grid(), *measured])
    assert both.verdict[0] == "3 norms were trained side by side in 27 runs under the lens; 1 of them diverged."
    assert both.verdict[1] == cover.verdict[0]


def test_runs_at_multiples_of_a_predicted_limit_are_counted_apart():
    pushed = [
        make_recording(f"{factor} x", variant=variant, status=status, limit={"factor": factor})
        for variant, factor, status in (("pre-ln", 0.5, "complete"), ("post-ln", 8.0, "diverged"))
    ]
    _, cover = covered([*grid(), *pushed])
    assert cover.verdict[0] == "3 norms were trained side by side in 27 runs under the lens; 1 of them diverged."
    assert cover.verdict[1] == (
        "2 arrangements were trained at 0.5 to 8 times the learning rate predicted as their limit in 2 runs under the "
        "lens; 1 of them diverged."
    )


def test_checks_that_are_no_claims_of_the_paper_are_counted_apart():
    own = [
        Finding(code="GL9", status=s, claim="x.", analysis="own") for s in ("warn", "pass", "not applicable", "pass")
    ]
    comparison = compare(grid(), (*QUESTIONS, question("own", judge=lambda table: own)))
    assert Cover.of_study("paper", "A", "B", "small", comparison).verdict[-1] == "Other checks: 2 pass, 1 warn."
    assert "Other checks" not in " ".join(covered(grid())[1].verdict)


def test_the_terminal_shows_the_same_table():
    comparison, cover = covered(grid())
    text = summary_text(comparison, cover)
    assert "diverged (step 7)" in text
    assert "seed 2" not in text


def test_of_very_many_recordings_those_of_a_task_and_variant_share_a_row_and_the_json_has_each():
    content = document(covered(grid())[0])
    assert len(content["recorded"]) == 27
    rows = {row["label"]: row for row in content["recorded_groups"]}
    assert len(rows) == 9
    assert rows["lm, none"] | {"recordings": "3", "status": "complete, diverged", "steps": "3"} == (rows["lm, none"])
    few = document(covered(grid(tasks=("lm",)))[0])["recorded_groups"]
    assert [row["recordings"] for row in few] == ["1"] * 9


def test_recordings_are_named_by_what_they_share():
    recordings = grid()
    labels = {
        key: [r.label for r in recordings if key in r.label] for key in ("lm", "adanorm", "seed 2", "images, none")
    }
    assert whose(labels["lm"], recordings) == ["lm (9)"]
    assert whose(labels["adanorm"], recordings) == ["adanorm (9)"]
    assert whose(labels["seed 2"], recordings) == ["seed 2 (9)"]
    assert whose([*labels["lm"], *labels["images, none"]], recordings) == [
        "lm, none (3)", "lm, layernorm (3)", "lm, adanorm (3)", "images, none (3)",
    ]  # fmt: skip
    assert whose(labels["images, none"], recordings) == labels["images, none"]  # few are named one by one
    mixed = [r.label for r in recordings if "seed 0" in r.label or "parsing" in r.label][1:]
    assert whose(mixed, recordings) == [*mixed[:3], f"{len(mixed) - 3} more"]


def test_what_many_recordings_lack_is_said_once():
    recordings = [
        Recording.from_tables(dict(recording.meta)) if "none" in recording.label else recording for recording in grid()
    ]
    lacking = document(compare(recordings, QUESTIONS))["sections"][0]["lacking"]
    assert lacking == {"none (9)": "the table norms"}
