"""GL321: real runs that share everything up to a step part exactly there."""

from typing import Any

import pytest
import torch
from torch import nn

from gradlens.lab.models.transformer import Transformer
from gradlens.recording import Recording
from tests.analyses.parting.pairs import STEPS, Wrapped, asked, judged, train
from tests.analyses.trained import LENGTH, VOCAB, transformer

CHANGED = 10


@pytest.fixture(scope="module")
def before() -> Recording:
    return train("before")


def set_rate(step: int, _: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    if step == CHANGED:
        optimizer.param_groups[0]["lr"] = 0.02


def set_weight(step: int, model: nn.Module, _: torch.optim.Optimizer) -> None:
    if step == CHANGED:
        with torch.no_grad():
            dict(model.named_parameters())["blocks.1.ffn.w1.weight"][0, 0] += 1e-3


class Doubled(torch.autograd.Function):
    """The identity, whose gradient is doubled."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return 2 * gradients[0]


def double_gradient(step: int, model: nn.Module, _: torch.optim.Optimizer) -> None:
    """From that step on the gradient that comes to the first block's output is doubled."""
    if step == CHANGED:
        model.get_submodule("blocks.1").register_forward_pre_hook(lambda _, x: (Doubled.apply(x[0]), *x[1:]))


def scale_output(step: int, model: nn.Module, _: torch.optim.Optimizer) -> None:
    """From that step on the second block makes a little more of its input."""
    if step == CHANGED:
        model.get_submodule("blocks.1.ffn").register_forward_hook(lambda m, x, out: 1.01 * out)


def test_a_run_does_not_part_from_itself(before: Recording) -> None:
    found = judged(before, train("after"))
    assert {f.status for f in found.values()} == {"pass"}
    assert f"bit for bit in all {STEPS} steps" in found["GL321"].claim
    assert found["GL322"].value == 0


@pytest.mark.parametrize(
    ("change", "onset", "born", "site", "all_of_them"),
    [
        (set_rate, CHANGED + 1, "update", "embedding.token.weight", True),
        (set_weight, CHANGED, "update", "blocks.1.ffn.w1.weight", False),
        (scale_output, CHANGED, "forward", "blocks.1", False),
        (double_gradient, CHANGED, "backward", "blocks.0.", False),
    ],
)
def test_step_pass_and_place_are_those_of_the_change(
    before: Recording, change: Any, onset: int, born: str, site: str, all_of_them: bool
) -> None:
    found = judged(before, train("after", at=change))["GL321"]
    assert (found.status, found.onset, found.born) == ("warn", onset, born)
    assert found.sites[0].startswith(site)
    assert "bit for bit before" in found.claim
    assert ("41 of 41" in found.claim) == all_of_them
    assert (f"rate is another from step {CHANGED} on" in found.claim) == (change is set_rate)


def test_where_updates_are_watched_the_update_itself_is_named() -> None:
    found = judged(train("before", updates=True), train("after", at=set_rate, updates=True))["GL321"]
    assert (found.onset, found.born) == (CHANGED, "update")
    assert found.value == pytest.approx(0.5, rel=1e-4)  # 0.02 for 0.01, but for the rounding of weights


@pytest.mark.parametrize(("change", "what"), [({"seed": 1}, "weights"), ({"first_batch": 100}, "input")])
def test_runs_that_never_were_the_same_are_told_so(before: Recording, change: dict[str, int], what: str) -> None:
    found = judged(before, train("after", **change))
    assert found["GL321"].status == "not applicable"
    assert f"never were the same: in step 0, the first that both recorded, they differ in their {what}" in (
        found["GL321"].claim
    )
    assert found["GL322"].status == "pass"  # but their ends are compared, against what seeds do


def test_another_model_is_not_compared(before: Recording) -> None:
    def other() -> nn.Module:
        return Transformer("pre-ln", vocab=VOCAB, width=16, blocks=2, heads=2, max_length=LENGTH)

    found = judged(before, train("after", build=other))
    assert {f.status for f in found.values()} == {"not applicable"}
    assert "other models" in found["GL321"].claim
    assert judged(before, train("after", build=other), margin=0.5)["GL322"].status == "pass"


def test_other_code_on_the_same_weights_parts_in_the_first_step_at_its_place(before: Recording) -> None:
    def other() -> nn.Module:
        model = transformer()
        model.get_submodule("blocks.1.ffn_norm").eps = 0.1
        return model

    found = judged(before, train("after", build=other))["GL321"]
    assert (found.status, found.onset, found.born, found.sites[0]) == ("warn", 0, "forward", "blocks.1.ffn_norm")
    assert "1/σ of blocks.1.ffn_norm" in found.claim


def test_a_wrapper_is_no_difference(before: Recording) -> None:
    assert judged(before, train("after", build=lambda: Wrapped(transformer())))["GL321"].status == "pass"


class LoRA(nn.Module):
    """A linear map with an adapter, named as PEFT names it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        a = nn.Linear(base.in_features, 2, bias=False)
        b = nn.Linear(2, base.out_features, bias=False)
        nn.init.zeros_(b.weight)
        self.lora_A, self.lora_B = nn.ModuleDict({"default": a}), nn.ModuleDict({"default": b})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


def test_lora_adds_parameters_and_parts_where_only_they_learn(before: Recording) -> None:
    def adapted() -> nn.Module:
        model = transformer().requires_grad_(False)
        for block in model.blocks:
            block.ffn.w1 = LoRA(block.ffn.w1)
        outer = nn.Module()
        outer.model = model
        whole = nn.Module()
        whole.base_model = outer
        whole.forward = model.forward  # type: ignore[method-assign]
        return whole

    comparison = asked(before, train("after", build=adapted))
    names = comparison.sections[0].shown["Parameters, sites and weights that are not the same by name."]
    assert set(names["change"]) == {"parameter added"}
    assert len(names) == 6
    found = comparison.findings[0]
    # The first update moves only the adapters; what frozen weights do not do is seen where their outputs are.
    assert (found.onset, found.born, found.sites[0]) == (1, "forward", "base_model.model.blocks.0")


def test_runs_of_other_cadences_are_paired_by_the_steps_that_both_recorded(before: Recording) -> None:
    found = judged(before, train("after", at=set_weight, every=4))["GL321"]
    assert found.onset == 12


def test_more_or_fewer_than_two_runs_are_no_pair(before: Recording) -> None:
    for runs in ([before], [before, before, before]):
        assert asked(*runs).findings == ()


def test_settings_that_differ_stand_in_a_table(before: Recording) -> None:
    comparison = asked(before, train("after", every=2))
    table = comparison.sections[0].shown["Settings in which the two runs differ."]
    assert ["every", "1", "2"] in table.to_numpy().tolist()
