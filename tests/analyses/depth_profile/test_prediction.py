"""Measured models are held against the theory of whole networks, and one that does not follow it is found."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradlens
from analyses.depth_profile import ANALYSIS
from analyses.depth_profile.prediction import Prediction
from analyses.tables import pick
from gradlens.analysis import Finding
from gradlens.analysis.figures import draw
from gradlens.lab.models.transformer import Transformer
from gradlens.recording import Recording
from tests.analyses.pictures import faults
from tests.analyses.planted import at_init, model

VOCAB, TOKENS = 200, {"sequences": 4.0, "length": 25.0}
ALIKE = dict.fromkeys(("same_within", "same_across", "next_same_within", "next_same_across"), 1 / VOCAB)


def random_tokens(seed: int, length: int = 25) -> Tensor:
    return torch.randint(VOCAB, (4, length), generator=torch.Generator().manual_seed(seed))


def next_token_loss(output: Tensor, batch: Any) -> Tensor:
    tokens = batch[-1] if isinstance(batch, tuple) else batch
    return F.cross_entropy(output[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def as_it_is(model: nn.Module) -> None:
    """A model whose equations are those of its arrangement."""


def without_output_scale(model: nn.Module) -> None:
    """DeepNorm whose second matrices were forgotten when V, O, W1 and W2 were scaled."""
    for name, weight in model.named_parameters():
        if name.endswith(("out.weight", "w2.weight")):
            nn.init.xavier_normal_(weight)


@cache
def measured(
    variant: str,
    kind: str = "decoder",
    width: int = 128,
    seeds: int = 8,
    change: Callable[[nn.Module], None] = as_it_is,
) -> Recording:
    def build() -> nn.Module:
        model = Transformer(variant, kind=kind, vocab=VOCAB, width=width, ffn=width, blocks=4, max_length=32)
        change(model)
        return model

    def batch(seed: int) -> Any:
        return (random_tokens(seed + 1000), random_tokens(seed)) if kind == "encoder-decoder" else random_tokens(seed)

    meta = {"task": {"name": "lm"}, "variant": variant}
    return gradlens.at_init(build, batch, next_token_loss, seeds, label=variant, without_norms=True, meta=meta)


def judged(recording: Recording) -> list[Finding]:
    return [f for f in ANALYSIS.judge(ANALYSIS.compute([recording])) if f.code == "GL104"]


@pytest.mark.parametrize(
    ("variant", "kind"),
    [("deepnorm", "decoder"), ("sub-ln", "encoder"), ("mix-ln", "decoder"), ("rezero", "decoder"),
     ("sub-ln/rmsnorm", "decoder"), ("deepnorm", "encoder-decoder"), ("sub-ln", "encoder-decoder")],
)  # fmt: skip
def test_a_model_that_is_built_as_its_equations_say_passes(variant: str, kind: str) -> None:
    found = judged(measured(variant, kind))
    assert [finding.status for finding in found] == ["pass"] * (2 if kind == "encoder-decoder" else 1)


def test_a_factor_that_is_missing_in_two_matrices_is_found_and_named() -> None:
    finding = judged(measured("deepnorm", change=without_output_scale))[0]
    assert finding.status == "warn"
    assert "does not behave as its equations say" in finding.claim
    ratios = [finding.details[f"measured over predicted {group}"] for group in ("attention.value", "ffn.w1")]
    assert ratios == pytest.approx([(8 * 4) ** 0.25] * 2, rel=0.1)  # 1/β, for what they pass back to V and W1
    assert finding.remedies[0].startswith(("Compare attention.value", "Compare ffn.w1"))


def test_the_same_in_a_narrow_network_is_inconclusive() -> None:
    finding = judged(measured("deepnorm", width=96, change=without_output_scale))[0]
    assert finding.status == "inconclusive"
    assert "96 wide" in finding.claim


def test_one_seed_is_inconclusive() -> None:
    assert judged(measured("deepnorm", seeds=1))[0].status == "inconclusive"


def test_every_stack_is_drawn_with_absolute_numbers_in_place_of_the_law() -> None:
    table = ANALYSIS.compute([measured("pre-ln", "encoder-decoder")])
    assert pick(table, quantity="law").empty
    for stack, cross in (
        ("encoder.blocks", set()),
        ("decoder.blocks", {"cross_attention.value", "cross_attention.out"}),
    ):
        own = pick(table, stack=stack)
        drawn = pick(own, quantity="predicted")
        assert set(drawn["group"]) == {"attention.value", "attention.out", "ffn.w1", "ffn.w2", "pre-ln"} | cross
        both = drawn.merge(pick(own, quantity="measured"), on=["panel", "group", "x"])
        assert len(both) == len(drawn)
        assert (both["value_x"] / both["value_y"] - 1).abs().median() < 0.05


def test_the_expected_ratio_over_depth_is_the_predicted_one() -> None:
    table = ANALYSIS.compute([measured("post-ln", "encoder-decoder")])
    found = [f for f in ANALYSIS.judge(table) if f.code == "GL101"]
    assert all(f.expected_from.startswith("mean-field theory") for f in found)
    decoder = found[1]
    assert decoder.expected == pytest.approx(decoder.value, rel=0.2)
    assert isinstance(decoder.expected, float)
    assert decoder.expected > 2 ** (1 / 3)  # a block, of four; what the law c/√q has as 1


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.25, 3.0])
def test_numbers_of_one_factor_are_off_by_it_as_a_share_of_the_larger(factor: float) -> None:
    recording = at_init("pre-ln", model=model("pre-ln", init="xavier"), task={"name": "lm"}, tokens=[TOKENS | ALIKE])
    theory = Prediction(recording)
    w2, stream = theory.gradient("blocks", "ffn.w2"), theory.stream("blocks")
    profiles = {"ffn.w2": pd.DataFrame([w2] * 3) * factor}
    rows = {row["quantity"]: row for row in theory.summary("blocks", profiles, pd.DataFrame([stream] * 3) * factor)}
    off = 1 - min(factor, 1 / factor)
    assert [rows["off the prediction"][end] for end in ("value", "low", "high")] == pytest.approx([off] * 3)
    assert rows["measured over predicted"]["value"] == pytest.approx(factor)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"kind": "init", "model": model("pre-ln", init="torch")}, "Xavier"),
     ({"model": model("pre-ln", init="xavier", norm="none")}, "unit second moment"),
     ({"model": model("pre-ln", init="xavier"), "task": {"name": "images"}}, "next tokens"),
     ({"model": {"family": "GPT2Model"}}, "of the zoo")],
)  # fmt: skip
def test_outside_the_theory_the_finding_says_why(change: dict[str, Any], reason: str) -> None:
    finding = judged(at_init("pre-ln", **change))[0]
    assert finding.status == "not applicable"
    assert reason in finding.claim


def test_the_picture_of_many_arrangements_cuts_no_text_and_no_panel_runs_into_its_neighbour() -> None:
    shown = [
        measured("deepnorm"),
        measured("mix-ln"),
        measured("rezero"),
        measured("sub-ln", "encoder"),
        at_init("pre-ln"),
    ]
    shown += [at_init("post-ln", label=f"net {number}", variant=f"net {number}") for number in range(6)]
    assert faults(draw(ANALYSIS, ANALYSIS.compute(shown))) == []
