"""Every situation, three claims: the numbers are right, training is as without the lens, nothing is left behind."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradlens
from tests.lens.situations import SITUATIONS, Situation
from tests.lens.witness import Witness

every_situation = pytest.mark.parametrize("situation", SITUATIONS, ids=str)
STEPS = 2


@every_situation
def test_what_is_recorded_is_what_a_witness_computes_in_float64(situation: Situation):
    watched = (situation.plain or situation.build)()
    witness, expected, gradients = Witness(watched), [], []
    situation.train(
        watched,
        STEPS,
        after_backward=lambda step: gradients.append(witness.gradients()),
        after_step=lambda step: expected.append(witness.step()),
    )
    model = situation.build()
    with gradlens.attach(model, **situation.options) as lens:
        situation.train(model, STEPS, after_step=lambda step: lens.step())
    recording = lens.recording
    assert recording.steps["step"].tolist() == list(range(STEPS))
    for step in range(STEPS):
        norms = _by_call(recording.norms, step, situation)
        inputs = _by_call(recording.activations.query("tensor == 'input'"), step, situation)
        assert set(norms) == set(expected[step])
        for call, row in expected[step].items():
            row.check(norms[call], situation.share, situation.relative)
            row.check_input(inputs[call], situation.relative)
        params = recording.params.query(f"step == {step}").set_index("name")
        assert set(params.index) == set(gradients[step])
        for name, grad in gradients[step].items():
            if grad is None:
                assert params.loc[name, ["grad_norm", "grad_absmax"]].isna().all(), name
            else:
                assert params.loc[name, "grad_norm"] == pytest.approx(float(grad.norm()), rel=1e-5), name
                assert params.loc[name, "grad_absmax"] == pytest.approx(float(grad.abs().max()), rel=1e-5), name
    unexpected = [said for said in lens.audit().problems() if not any(words in said for words in situation.says)]
    assert unexpected == []


def _by_call(table, step: int, situation: Situation) -> dict:
    rows = table[table["step"] == step]
    return {(situation.site(row["site"]), row["call"]): row for _, row in rows.iterrows()}


@every_situation
def test_training_is_bit_for_bit_that_without_the_lens(situation: Situation):
    def run(attached: bool):
        model = situation.build()
        lens = gradlens.attach(model, **situation.options) if attached else None
        losses = situation.train(model, 3, after_step=lambda step: lens.step() if lens else None)
        if lens:
            lens.detach()
        return losses, model.state_dict(), torch.get_rng_state()

    (losses, state, rng), (losses_seen, state_seen, rng_seen) = run(False), run(True)
    assert torch.equal(rng, rng_seen)
    if situation.drift == 0:
        assert losses == losses_seen
    assert list(state) == list(state_seen)
    for name, tensor in state.items():
        torch.testing.assert_close(state_seen[name], tensor, rtol=situation.drift, atol=situation.drift, msg=name)


class InterruptionError(Exception):
    """What a test raises in the middle of a step."""


@every_situation
@pytest.mark.parametrize("ended", ["in good order", "by an exception in forward", "by an exception in backward"])
def test_nothing_is_left_behind(situation: Situation, ended: str):
    model = situation.build()
    before = traces(model)
    lens = gradlens.attach(model, **situation.options)
    situation.train(model, 1, after_step=lambda step: lens.step())
    if ended == "in good order":
        lens.detach()
    else:
        bomb = _bomb(model, forward=ended.endswith("forward"))

        def fail() -> None:
            with lens:
                situation.train(model, 1)

        with pytest.raises(InterruptionError):
            fail()
        bomb.remove()
    assert traces(model) == before
    pickle.dumps(model.state_dict())
    situation.train(model, 1)  # it still trains


def _bomb(model: nn.Module, forward: bool):
    """A hook of our own that goes off in the last leaf's forward, or when its gradient arrives."""

    def explode(*args):
        raise InterruptionError

    def plant(module, args, output):
        tensor = output if isinstance(output, torch.Tensor) else output[0]
        explode() if forward or not tensor.requires_grad else tensor.register_hook(explode)

    # The last linear map: some norms have run before it, some have not. (Attention reads its own without calling it.)
    last = [module for module in model.modules() if type(module) in (nn.Linear, nn.Conv2d, nn.LSTM)][-1]
    return last.register_forward_hook(plant)


def traces(model: nn.Module) -> dict:
    """All that a lens could leave behind: hooks, attributes, changed functions."""
    hooks = [key for key in vars(nn.Module()) if "hooks" in key]
    names = ("layer_norm", "rms_norm", "batch_norm", "group_norm", "instance_norm")
    return {
        "functions": [getattr(home, name) for home in (F, torch) for name in names],
        "modules": {
            path: (
                {key: dict(getattr(module, key) or {}) for key in hooks},
                sorted(vars(module)),
                module.forward.__func__,
            )
            for path, module in model.named_modules()
        },
        "parameters": {
            name: (p._backward_hooks, getattr(p, "_post_accumulate_grad_hooks", None), sorted(vars(p)))
            for name, p in model.named_parameters()
        },
    }
