"""Attaching, detaching, and copies: what a lens does to a model's life beside training."""

import copy
import io
import os
import pickle
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

import gradlens
from tests.lens.networks import WIDTH, Block, stack
from tests.lens.passes import backward, record, vectors


def hooks(model: nn.Module) -> int:
    kinds = [key for key in vars(nn.Module()) if "hooks" in key]
    return sum(len(getattr(module, kind) or ()) for module in model.modules() for kind in kinds)


def numbers(recording: gradlens.Recording):
    return recording.norms.select_dtypes("number").to_numpy()


# ---------------------------------------------------------------------- many norms, some norms, several lenses


def test_a_thousand_norms_attach_in_seconds_and_give_a_thousand_rows():
    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.scale = nn.LayerNorm(4), nn.Linear(4, 4)

        def forward(self, x):
            return x + self.scale(self.norm(x))

    model = nn.Sequential(*[Tiny() for _ in range(1000)])
    start = time.process_time()
    lens = gradlens.attach(model)
    attaching = time.process_time() - start
    model(torch.randn(3, 4)).square().sum().backward()
    lens.step()
    lens.detach()
    assert lens.recording.norms["site"].nunique() == len(lens.recording.norms) == 1000
    assert lens.recording.norms["grad_output_norm"].notna().all()
    assert attaching < 5
    assert hooks(model) == 0


def test_watch_takes_several_patterns_and_a_norm_that_matches_two_is_recorded_once():
    lens = record(stack(), watch=(r"norm$", r"^1\.0", "params"))
    assert sorted(set(lens.recording.norms["site"])) == ["1.0.norm", "1.1.norm", "1.2.norm"]
    assert len(lens.recording.norms) == 3
    assert set(lens.recording.sites["site"]) == {"1.0", "1.0.linear", "1.0.norm", "1.1.norm", "1.2.norm"}


def test_patterns_leave_out_what_they_do_not_match():
    recording = record(stack(), watch=(r"^1\.[02]\.norm$",)).recording
    assert recording.norms["site"].tolist() == ["1.0.norm", "1.2.norm"]
    assert recording.params.empty


def test_a_lens_inside_a_lens_and_one_on_a_part_see_the_same_numbers():
    model = stack()
    with gradlens.attach(model) as outer, gradlens.attach(model) as inner, gradlens.attach(model[1]) as part:
        for step in range(2):
            model.zero_grad()
            backward(model, vectors(step))
            for lens in (part, outer, inner):
                lens.step()
    assert numbers(outer.recording) == pytest.approx(numbers(inner.recording), rel=1e-6, nan_ok=True)
    whole = outer.recording.norms.query("site != '2'").reset_index(drop=True)
    assert ("1." + part.recording.norms["site"]).tolist() == whole["site"].tolist()
    columns = whole.select_dtypes("number").columns
    assert part.recording.norms[columns].to_numpy() == pytest.approx(whole[columns].to_numpy(), rel=1e-5, abs=1e-8)
    assert hooks(model) == 0
    for lens in (outer, inner, part):
        assert lens.audit().problems() == []


def test_lenses_may_be_detached_in_any_order():
    model = stack()
    first, second = gradlens.attach(model), gradlens.attach(model)
    first.detach()
    backward(model, vectors(0))
    second.step()
    second.detach()
    assert len(second.recording.norms) == 4
    assert hooks(model) == 0


def test_attaching_again_after_detaching_records_the_same():
    assert numbers(record(stack()).recording) == pytest.approx(numbers(record(stack()).recording), nan_ok=True)
    model = stack()
    first, again = record(model).recording, record(model).recording
    assert numbers(first) == pytest.approx(numbers(again), nan_ok=True)


def test_hooks_of_the_users_own_run_as_before_and_stay():
    model, seen = stack(), []
    model[2].register_forward_pre_hook(lambda module, args: (2 * args[0],))
    model[2].register_forward_hook(lambda module, args, output: seen.append(output) or 3 * output)
    model[2].register_full_backward_hook(lambda module, grad_input, grad_output: seen.append(grad_output))
    before = hooks(model)
    lens = record(model)
    assert hooks(model) == before
    assert len(seen) == 2
    assert lens.recording.norms["grad_input_norm"].notna().all()


def test_modules_added_or_replaced_after_attaching_are_named_by_the_audit():
    """A norm that is swapped in later has no hooks; the one it replaced never runs."""
    model = stack(Block, 2)
    with gradlens.attach(model) as lens:
        model[1][0].norm = nn.LayerNorm(WIDTH)
        backward(model, vectors(0))
        lens.step()
    assert any("1.0.norm" in problem for problem in lens.audit().problems())


# ---------------------------------------------------------------------- copies


@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_made_while_attached_trains_and_is_not_watched(copied):
    model = stack()
    with gradlens.attach(model, functional=True) as lens:
        backward(model, vectors(0))
        lens.step()
        if copied == "deepcopy":
            twin = copy.deepcopy(model)
        elif copied == "pickle":
            twin = pickle.loads(pickle.dumps(model))
        else:
            buffer = io.BytesIO()
            torch.save(model, buffer)
            buffer.seek(0)
            twin = torch.load(buffer, weights_only=False)
        model.zero_grad()
        twin.zero_grad()
        backward(twin, vectors(1))
        backward(model, vectors(1))
        lens.step()
    assert lens.recording.norms.groupby("step").size().tolist() == [4, 4]
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad)
    assert len(record(twin).recording.norms) == 4  # a copy can be watched itself


def test_a_model_saved_while_attached_loads_where_gradlens_is_not_installed(tmp_path):
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH))
    with gradlens.attach(model):
        torch.save(model, tmp_path / "model.pt")
    program = (
        "import sys, torch; sys.modules['gradlens'] = None;"
        f"model = torch.load({str(tmp_path / 'model.pt')!r}, weights_only=False);"
        f"model(torch.ones(2, {WIDTH})).sum().backward()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-500:]


def test_state_dict_is_that_of_the_model_while_attached():
    model = stack()
    keys = list(model.state_dict())
    with gradlens.attach(model):
        assert list(model.state_dict()) == keys
        stack().load_state_dict(model.state_dict())
        model.load_state_dict(stack().state_dict())


def test_moving_the_model_to_another_precision_while_attached_is_followed():
    model = stack()
    with gradlens.attach(model) as lens:
        backward(model, vectors(0))
        lens.step()
        model.double().zero_grad()
        backward(model, vectors(0).double())
        lens.step()
    first, second = (lens.recording.norms.query(f"step == {step}") for step in (0, 1))
    assert first["kept"].to_numpy() == pytest.approx(second["kept"].to_numpy(), rel=1e-4)


def test_a_lens_is_one_line_and_in_a_notebook_its_problems():
    model = stack()
    with gradlens.attach(model) as lens:
        assert repr(lens) == "Lens(0 of 4 norms seen in 0 steps; 1 problem)"
        assert "<li>No step was recorded: call lens.step()" in lens._repr_html_()
        backward(model, vectors(0))
        lens.step()
    assert repr(lens) == "Lens(4 of 4 norms seen in 1 step; nothing was missed; detached)"
