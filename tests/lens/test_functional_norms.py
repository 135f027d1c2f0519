"""Norms that run without their module being called: named by the audit, and recorded with ``functional=True``."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

# By name, before any lens is attached: the way half of the world's code has it.
from torch.nn.functional import layer_norm, rms_norm

import gradlens
from tests.lens import twists
from tests.lens.networks import WIDTH, Block, stack
from tests.lens.passes import backward, pictures, record, vectors
from tests.lens.twists import images

FUNCTIONS = ("layer_norm", "rms_norm", "batch_norm", "group_norm", "instance_norm")
HOMES = [(home, name) for home in (F, torch) for name in FUNCTIONS]


def calling(branch) -> nn.Module:
    """A stack whose blocks compute their branch by a function of (block, input)."""
    model = stack(Block, 2)
    for block in model[1]:
        block.branch = branch.__get__(block)
    return model


#: How a norm can run without its module: the call, and how the audit names it.
CALLS = {
    "F.layer_norm": lambda self, x: self.linear(F.layer_norm(x, (WIDTH,))),
    "F.layer_norm with keywords": lambda self, x: self.linear(F.layer_norm(input=x, normalized_shape=(WIDTH,))),
    "layer_norm imported by name": lambda self, x: self.linear(layer_norm(x, (WIDTH,))),
    "torch.layer_norm": lambda self, x: self.linear(torch.layer_norm(x, (WIDTH,))),
    "F.rms_norm": lambda self, x: self.linear(F.rms_norm(x, (WIDTH,), eps=1e-5)),
    "rms_norm imported by name": lambda self, x: self.linear(rms_norm(x, (WIDTH,), eps=1e-5)),
    "module.forward": lambda self, x: self.linear(self.norm.forward(x)),
}
every_call = pytest.mark.parametrize("call", CALLS)


@every_call
def test_a_norm_that_runs_as_a_function_is_named_by_the_audit(call):
    audit = record(calling(CALLS[call])).audit()
    assert len(audit.functional) == 2
    assert all(where.startswith(("1.0", "1.1")) for where in audit.functional)
    assert any("functional=True" in problem and "1.0" in problem for problem in audit.problems())


@every_call
def test_a_norm_that_runs_as_a_function_is_recorded_when_asked_for(call):
    lens = record(calling(CALLS[call]), 2, functional=True)
    centered = "rms" not in call
    module = nn.LayerNorm if centered else nn.RMSNorm
    plain = stack(Block, 2)
    for block in plain[1]:
        block.norm = module(WIDTH, eps=1e-5, elementwise_affine=False) if call != "module.forward" else block.norm
    expected = record(plain, 2).recording.norms
    got = lens.recording.norms
    for site in ("1.0", "1.1"):
        rows = got[got["site"].str.startswith(site)].select_dtypes("number").to_numpy()
        exact = expected[expected["site"].str.startswith(site)].select_dtypes("number").to_numpy()
        assert rows == pytest.approx(exact, rel=1e-4, abs=1e-7), site
    assert lens.audit().functional == {}


def test_the_sites_of_functions_say_what_they_are():
    lens = record(images(functional=True), batch=pictures, functional=True)
    sites = lens.recording.sites.set_index("site")
    functions = sites[sites.index.str.startswith("#")]
    assert functions["norm"].to_dict() == {
        "#batch_norm": "batchnorm",
        "#group_norm": "groupnorm",
        "#instance_norm": "instancenorm",
        "#rms_norm": "rmsnorm",
    }
    assert (functions["eps"] == 1e-5).all()
    assert functions["affine"].all()


def test_the_advice_to_record_functions_is_not_given_where_they_are_recorded():
    lens = record(stack(twists.FunctionalBlock), functional=True)
    assert not [problem for problem in lens.audit().problems() if "functional=True" in problem]


def test_modules_and_functions_together_are_each_recorded_once():
    class Both(Block):
        def branch(self, x):
            return self.linear(F.layer_norm(self.norm(x), (WIDTH,), eps=1e-3))

    model = stack(Both, 2)
    lens = record(model)
    assert lens.audit().functional == {"1.0: F.layer_norm": 1, "1.1: F.layer_norm": 1}
    assert lens.recording.norms["site"].tolist() == ["1.0.norm", "1.1.norm", "2"]
    rows = record(model, 2, functional=True).recording.norms.groupby("site").size().to_dict()
    assert rows == {"1.0.norm": 2, "1.0#layer_norm": 2, "1.1.norm": 2, "1.1#layer_norm": 2, "2": 2}


def test_several_calls_of_one_function_in_one_module_are_calls_of_one_site():
    model = calling(lambda self, x: self.linear(F.layer_norm(x, (WIDTH,)) + F.layer_norm(3 * x, (WIDTH,))))
    norms = record(model, functional=True).recording.norms
    assert norms.query("site == '1.0#layer_norm'")["call"].tolist() == [0, 1]


@pytest.mark.parametrize("functional", [False, True])
def test_the_functions_are_torchs_own_again_after_detach_and_after_an_exception(functional):
    before = [getattr(home, name) for home, name in HOMES]

    def fail() -> None:
        with gradlens.attach(stack(), functional=functional):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    record(stack(twists.FunctionalBlock), functional=functional)
    assert [getattr(home, name) for home, name in HOMES] == before
    assert layer_norm is F.layer_norm


def test_of_two_lenses_the_one_that_is_detached_first_does_not_blind_the_other():
    first, second = stack(twists.FunctionalBlock), stack(twists.FunctionalBlock)
    before = [getattr(home, name) for home, name in HOMES]
    outer, inner = gradlens.attach(first, functional=True), gradlens.attach(second, functional=True)
    for lens, model in ((outer, first), (inner, second)):
        backward(model, vectors(0))
        lens.step()
    outer.detach()
    backward(second, vectors(1))
    inner.step()
    inner.detach()
    assert len(outer.recording.norms) == 4
    assert inner.recording.norms.groupby("step").size().tolist() == [4, 4]
    assert [getattr(home, name) for home, name in HOMES] == before


def test_functions_called_outside_of_the_model_are_nobodys():
    model = stack()
    with gradlens.attach(model, functional=True) as lens:
        loss = F.layer_norm(model(vectors(0)), (WIDTH,)).square().mean()
        loss.backward()
        lens.step()
    assert lens.recording.norms["site"].tolist() == ["1.0.norm", "1.1.norm", "1.2.norm", "2"]


def test_a_batch_norm_function_in_evaluation_has_constants_for_statistics():
    class Evaluating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.conv = nn.BatchNorm2d(4), nn.Conv2d(2, 4, 3)

        def forward(self, x):
            return F.batch_norm(self.conv(x), self.bn.running_mean, self.bn.running_var, training=False)

    row = record(Evaluating(), batch=pictures, functional=True).recording.norms.iloc[0]
    assert row["recentering"] == 0
    assert row["kept"] == pytest.approx(1, abs=1e-5)


def test_a_failing_call_of_a_function_leaves_nothing_open():
    model = calling(lambda self, x: self.linear(F.layer_norm(x, (WIDTH + 1,))))
    with gradlens.attach(model, functional=True) as lens:
        with pytest.raises(RuntimeError, match="normalized_shape"):
            model(vectors(0))
        for block in model[1]:
            block.branch = CALLS["F.layer_norm"].__get__(block)
        backward(model, vectors(0))
        lens.step()
    assert lens.recording.norms["site"].tolist() == ["2", "1.0#layer_norm", "1.1#layer_norm"]
    assert lens.recording.norms["grad_input_norm"].notna().all()
