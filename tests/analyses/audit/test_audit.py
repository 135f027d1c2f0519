"""What a lens missed becomes a finding, whatever it is; what recordings share is said once."""

from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analyses.audit import ANALYSIS, compute, judge, show
from analyses.audit.words import settings, some
from gradlens.analysis import Finding, worst
from gradlens.lens.audit import Audit
from gradlens.recording import Recording
from tests.analyses.planted import audit

FIVE = tuple(f"blocks.{i}.norm" for i in range(5))
#: Field of Audit to a value of it that is a problem.
MISSED: dict[str, Any] = {
    "norms": (),
    "silent": FIVE,
    "transformed": FIVE,
    "strangers": FIVE,
    "impossible": FIVE,
    "hooked": FIVE,
    "without_grad_output": FIVE,
    "functional": {f"{site}: F.layer_norm": 2 for site in FIVE},
    "unsupported": {"a": "its input is a dict, not a tensor", "b": "it moved"},
    "notes": ("Gradients were read late, after clipping.", "Another thing. Do this."),
    "nonfinite": "a, step 3",
    "steps": 0,
}
#: What no finding is made of but "not applicable", or which only tells of the setting.
TOLD = {
    "without_grad_input", "without_graph", "fired", "functions_recorded", "tied", "gradient", "calls", "setting",
    "passes",
}  # fmt: skip


def recording(label: str = "mine", kind: str = "attached", **meta: Any) -> Recording:
    return Recording.from_tables({"label": label, "kind": kind} | meta)


def judged(*recordings: Recording) -> list[Finding]:
    return judge(compute(recordings))


def one(**changes: Any) -> list[Finding]:
    return judged(recording(audit=audit(**changes)))


def words(kind: str = "attached", **setting: Any) -> dict[str, str]:
    return words_of(audit(setting=setting), kind)


def words_of(told: dict[str, Any], kind: str = "attached") -> dict[str, str]:
    return dict(settings(told, kind))


def test_where_nothing_was_missed_that_is_said() -> None:
    (found,) = one()
    assert found.status == "pass"
    assert found.claim == "mine: nothing was missed: every norm that was found has fired and was recorded."


@pytest.mark.parametrize("field", MISSED)
def test_everything_that_the_lens_calls_a_problem_is_a_warning(field: str) -> None:
    missed = audit(**{field: MISSED[field]})
    found = [f for f in judged(recording(kind="init", audit=missed)) if f.status == "warn"]
    said = [" ".join((f.claim, *f.causes, *f.remedies)).lower() for f in found]
    assert len(found) == len(missed["problems"]) > 0
    for sentence in missed["problems"]:
        opening = sentence.lower().split(". ")[0].rstrip(".")
        assert any(opening in text for text in said)


def test_a_training_of_a_model_without_norms_is_not_blamed_for_it() -> None:
    (found,) = (f for f in one(norms=()) if "no normalization was found" in f.claim)
    assert found.status == "not applicable"


def test_what_was_not_finite_is_told_once_in_a_training_that_knows_the_place() -> None:
    told = audit(nonfinite="the output of a, in the forward pass, step 3")
    assert any("Non-finite" in f.claim or "non-finite" in f.claim for f in judged(recording(audit=told)))
    told["setting"]["nonfinite"] = {"site": "a", "tensor": "output", "born": "forward", "step": 3}
    assert not any("on-finite" in f.claim for f in judged(recording(audit=told)))


def test_damage_to_a_recording_is_a_warning_in_its_own_words() -> None:
    said = "segments/norms-r1-a0.arrows is damaged: the checksum of a batch does not fit."
    found = judged(recording(audit=audit(), damage=[said, "Steps from 4 on are left out."]))
    assert [f.status for f in found] == ["warn", "warn"]
    assert "norms-r1-a0.arrows is damaged" in found[0].claim
    assert judged(recording(damage=[said]))[0].status == "warn"


@pytest.mark.parametrize("label", ["①", "²", "٣", "10"])
def test_a_label_of_digits_is_a_name_and_no_number(label: str) -> None:
    shown = show(compute([recording(label, audit=audit()), recording("b", audit=audit(steps=0))]))
    assert all(rows["recordings"].map(type).eq(str).all() for rows in shown.values() if "recordings" in rows)
    assert show(compute([recording(label, audit=audit())]))


def test_no_field_of_the_audit_is_unknown_here() -> None:
    assert {field.name for field in fields(Audit)} == MISSED.keys() | TOLD


@pytest.mark.parametrize("field", ["silent", "transformed", "strangers", "impossible", "hooked", "without_grad_output"])
def test_a_finding_names_all_sites_where_the_sentence_names_three(field: str) -> None:
    (found,) = [f for f in one(**{field: FIVE}) if f.status == "warn"]
    assert "and 2 more" in found.claim
    assert found.sites == FIVE


def test_sites_of_other_gaps_are_not_mixed_in() -> None:
    found = one(silent=("a",), strangers=("a.norm",), unsupported={"b": "it moved", "b.b": "it broke"})
    assert {f.sites for f in found} == {("a",), ("a.norm",), ("b",), ("b.b",)}


def test_what_to_do_is_a_remedy_and_what_may_be_is_a_cause() -> None:
    gaps = ({"strangers": ("x",)}, {"silent": ("a",)}, {"silent": ("a",), "functions_recorded": True})
    strangers, silent, unused = (one(**gap)[0] for gap in gaps)
    assert strangers.remedies == ("Name their axes with gradlens.register_norm.",)
    assert not strangers.claim.endswith("register_norm.")
    assert silent.remedies[0].startswith("The norms named may be unused, or called as functions: try attach(")
    assert (unused.causes, unused.remedies) == (("The norms named may be unused.",), ())


def test_norms_of_which_nothing_was_recorded_fail() -> None:
    found = one(fired=(), silent=("a", "b"))
    assert [f.status for f in found] == ["fail", "warn"]
    assert "nothing was recorded of any norm" in found[0].claim


def test_norms_that_are_recorded_as_functions_are_not_nothing() -> None:
    sites = pd.DataFrame({"site": ["a", "f.layer_norm"], "kind": "norm"})
    kept = audit(norms=("a",), fired=(), functions_recorded=True)
    made = Recording.from_tables({"label": "x", "kind": "attached", "audit": kept}, sites=sites)
    assert worst(judged(made)) == "pass"
    (numbers, _) = show(compute([made])).values()
    assert numbers["as functions"].tolist() == [1]


def test_a_gradient_that_is_no_number_is_not_said_to_be_needless() -> None:
    norms = pd.DataFrame({"step": [0], "site": ["a"], "call": 0, "rank": 0, "nonfinite": [32]})
    kept = audit(norms=("a", "b"), without_grad_input=("a", "b"))
    found = judged(Recording.from_tables({"label": "x", "kind": "attached", "audit": kept}, norms=norms))
    assert [f.sites for f in found if f.status == "not applicable"] == [("b",)]


def test_a_variant_without_norms_has_none_to_miss() -> None:
    kept = audit(norms=())
    assert worst(judged(recording(kind="init", audit=kept))) == "warn"
    (found,) = judged(recording(audit=kept, model={"norm": "none"}))
    assert found.status == "pass"
    assert "there is no norm" in found.claim


def test_an_input_without_gradient_and_calls_without_a_graph_are_told_and_not_blamed() -> None:
    found = one(without_grad_input=("a",), without_graph=("b",))
    assert [f.status for f in found] == ["not applicable", "not applicable", "pass"]
    assert found[0].sites == ("a",)
    assert "torch.no_grad" in found[1].claim


def test_what_recordings_share_is_one_finding_that_names_them_together() -> None:
    labels = ["a", "b", "c", "d"]
    found = judged(*(recording(label, "training", audit=audit(silent=("a",))) for label in labels))
    (warned,) = [f for f in found if f.status == "warn"]
    assert warned.subject == "all 4 training runs"
    assert warned.claim.startswith("all 4 training runs: 1 of 2 norms never ran")
    assert warned.details["recordings"] == labels


def test_one_that_missed_something_does_not_stain_the_others() -> None:
    found = judged(recording("good", audit=audit()), recording("bad", audit=audit(strangers=("x",))))
    assert [(f.status, f.subject) for f in found] == [("warn", "bad"), ("pass", "good")]


def test_without_any_audit_the_check_does_not_apply() -> None:
    assert [f.status for f in judged(recording(), recording("b", audit={}))] == ["not applicable"]
    assert compute([recording()]).empty


def test_a_recording_without_an_audit_is_named_beside_others() -> None:
    found = judged(recording("old"), recording("new", audit=audit()))
    assert [(f.status, f.subject) for f in found] == [("pass", "new"), ("not applicable", "old")]


def test_the_audit_of_an_earlier_version_is_told_as_far_as_it_goes() -> None:
    old = {"norms": ["a"], "fired": ["a"], "gradient": "reduced", "problems": ["One thing. Do that."]}
    made = recording(audit=old)
    (found,) = judged(made)
    assert (found.claim, found.remedies) == ("mine: one thing.", ("Do that.",))
    numbers, depends = show(compute([made])).values()
    assert numbers.iloc[0].to_dict() == {"recordings": "mine", "found": 1, "armed": 1, "fired": 1}
    assert depends["setting"].tolist() == ["gradients of parameters"]
    assert [f.status for f in judged(recording(audit={"problems": ["2 norms never ran."]}))] == ["warn"]


def test_the_counts_tell_how_far_the_norms_were_seen() -> None:
    kept = audit(norms=FIVE, fired=FIVE[:4], silent=FIVE[4:], strangers=("x",), without_grad_input=FIVE[:1],
                 functional={"f": 3}, calls={"most": 3, "sites": {FIVE[0]: 3}})  # fmt: skip
    rows = compute([recording(audit=kept)]).query("part == 'norms'").set_index("question")
    expected = {"found": "6", "armed": "5", "fired": "4", "output reached": "4", "input reached": "3",
                "calls a step": "1 to 3", "as functions": "0", "unseen": "1"}  # fmt: skip
    assert rows["answer"].to_dict() == expected
    assert rows.loc["calls a step", "value"] == 3


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ({"most": 2, "sites": {"a": 2, "b": 2}}, "2"),
        ({"most": 4, "sites": {"a": 2, "b": 4}}, "2 to 4"),
        ({"most": 0, "sites": {}}, "0"),
    ],
)
def test_calls_are_a_range_where_norms_differ(calls: dict[str, Any], words: str) -> None:
    fired = ("a", "b") if calls["most"] else ()
    rows = compute([recording(audit=audit(calls=calls, fired=fired))]).query("question == 'calls a step'")
    assert rows["answer"].tolist() == [words]


@pytest.mark.parametrize(
    ("setting", "question", "part"),
    [
        ({"every": 10}, "recorded", "one step in 10"),
        ({"passes": [4, 4]}, "backward passes", "4 make up the gradient of a step"),
        ({"passes": [1, 4]}, "backward passes", "1 to 4 make up the gradient of a step"),
        ({"passes": [4, 4]}, "gradients of parameters", "summed over 4 backward passes a step"),
        ({"passes": [0, 0]}, "backward passes", "none was seen"),
        ({"world": 8}, "gradients of norms", "of all 8 processes, divided by the 8 that share the data"),
        ({"world": 8}, "gradients of parameters", "after reductions"),
        ({"loss_scale": True}, "loss scale", "divided out of every gradient"),
        ({"autocast": "float16"}, "loss scale", "where the loss was scaled, so are all gradients here"),
        ({"autocast": "bfloat16"}, "precision", "inputs of norms in float32; autocast to bfloat16"),
        ({"input_dtypes": {"float32": 1, "bfloat16": 8}}, "precision", "float32 (1), bfloat16 (8)"),
        ({"compiled": ["a"]}, "compiled", "1 of 2 norms ran inside a compiled graph, and are recorded there: a"),
        ({"compiled": ["a", "b"], "graphs_dropped": True}, "compiled", "were compiled anew"),
        ({"checkpointed": ["a", "b"]}, "checkpoints", "all norms ran again in backward, and count once"),
        ({"functional": True}, "norms as functions", "recorded"),
    ],
)
def test_the_setting_is_told_in_words(setting: dict[str, Any], question: str, part: str) -> None:
    assert part in words(**setting)[question]


def test_a_recording_that_was_thinned_says_so() -> None:
    table = compute([recording(audit=audit(), thinned={"before": 8000, "span": 4}), recording("whole", audit=audit())])
    told = table[table["question"] == "kept"]
    assert told[["label", "answer"]].values.tolist() == [
        ["mine", "of the steps before 8,000 the first in each 4, and around events"]
    ]


def test_what_was_left_out_is_told_in_the_lens_own_words() -> None:
    left_out = "Left out of the rows: backward passes inside of lens.paused() (2, first in step 4)."
    assert words_of(audit(passes=(left_out,)))["backward passes"] == f"one a step. {left_out}"


def test_of_an_earlier_recording_it_is_not_known_which_passes_its_gradients_are_of() -> None:
    earlier = audit()
    del earlier["setting"]["passes"]
    earlier["setting"]["micro_batches"] = 4
    assert words_of(earlier)["backward passes"] == "4 seen in the first recorded step"
    assert "summed" not in words_of(earlier)["gradients of parameters"]


def test_in_the_plain_case_nothing_is_said_to_be_scaled_reduced_or_summed() -> None:
    told = words()
    assert told["gradients of parameters"] == "read at the end of backward, before clipping"
    assert told["loss scale"] == "no scaler was given"
    assert told["backward passes"] == "one a step"
    assert words(kind="init")["recorded"] == "one forward and one backward pass a seed"


def test_answers_stand_once_with_whose_they_are_only_where_they_differ() -> None:
    same = [recording(label, audit=audit()) for label in "abc"]
    numbers, depends = show(compute(same)).values()
    assert numbers["recordings"].tolist() == ["all 3 recorded runs"]
    assert list(depends) == ["setting", "value"]
    other = recording("d", audit=audit(setting={"every": 5}))
    depends = list(show(compute([*same, other])).values())[1]
    assert depends["recordings"].tolist()[:3] == ["a, b and c", "d", ""]
    assert depends["setting"].tolist()[:3] == ["recorded", "recorded", "backward passes"]


def test_many_names_are_counted() -> None:
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some(list("abcde")) == "a, b, c and 2 more"


def test_the_code_is_explained() -> None:
    assert ANALYSIS.codes["GL001"].startswith("The lens saw every norm.")


def of_two_processes(*broken: tuple[int, int, str, str]) -> Recording:
    """Rows of three steps, two processes, two blocks with a norm each; broken: step, rank, site, and what of it."""
    sites = pd.DataFrame(
        {"site": ["b.0", "b.0.norm", "b.1", "b.1.norm"], "kind": ["block", "norm"] * 2, "order": range(4)}
    )
    keys = [(step, rank, site) for step in range(3) for rank in range(2) for site in sites["site"]]
    activations, norms = [], []
    for step, rank, site in keys:
        tensor = "input" if "norm" in site else "output"
        absmax = np.nan if (step, rank, site, tensor) in broken else 1.0
        activations.append({"step": step, "rank": rank, "site": site, "tensor": tensor, "absmax": absmax, "numel": 9})
        if "norm" in site:
            nonfinite = int((step, rank, site, "gradient") in broken)
            norms.append({"step": step, "rank": rank, "site": site, "nonfinite": nonfinite})
    meta = {
        "label": "mine",
        "audit": audit(nonfinite="the gradient of head.weight, in the backward pass, step 1, process 0"),
    }
    return Recording.from_tables(meta, sites=sites, activations=pd.DataFrame(activations), norms=pd.DataFrame(norms))


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (
            [
                (1, 1, "b.0", "output"),
                (1, 1, "b.1.norm", "input"),
                (1, 1, "b.0.norm", "gradient"),
                (2, 0, "b.0.norm", "input"),
            ],
            "the output of b.0, in the forward pass, step 1, process 1",
        ),
        (
            [(1, 1, "b.0.norm", "input"), (1, 1, "b.0", "output")],
            "the input of b.0.norm, in the forward pass, step 1, process 1",
        ),
        (
            [(1, 1, "b.1.norm", "gradient"), (1, 1, "b.0.norm", "gradient"), (2, 0, "b.0", "output")],
            "the gradient at b.1.norm, in the backward pass, step 1, process 1",
        ),
        ([], "the gradient of head.weight, in the backward pass, step 1, process 0"),
    ],
)
def test_of_several_processes_the_one_is_named_that_broke_first(broken, told) -> None:
    said = [finding.claim for finding in judged(of_two_processes(*broken)) if "on-finite values" in finding.claim]
    assert len(said) == 1
    assert told in said[0]
