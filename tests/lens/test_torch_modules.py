"""torch's own stacks: transformers with their fused path, attention, recurrent networks, wrappers around modules."""

import pytest
import torch
from torch import nn

import gradlens
from gradlens import GradlensError
from tests.lens import networks, twists
from tests.lens.networks import WIDTH, encoder
from tests.lens.passes import backward, record, vectors


def test_every_norm_of_a_transformer_is_found_placed_and_recorded():
    torch.manual_seed(0)
    model = nn.Transformer(WIDTH, 2, 2, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
    with gradlens.attach(model) as lens:
        x = vectors(0)
        backward(lambda x: model(x, x.flip(1)), x)
        lens.step()
    sites = lens.recording.sites.query("kind == 'norm'").set_index("site")["placement"]
    assert len(sites) == 2 * 2 + 2 * 3 + 2  # in encoder layers, in decoder layers, and one after each stack
    assert sites.value_counts().to_dict() == {"pre_branch": 10, "final": 2}
    assert set(lens.audit().fired) == set(sites.index)
    assert lens.audit().problems() == []


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_pass_without_gradients_is_the_same_and_not_recorded(training):
    """In eval mode torch would take its fused path, which it leaves where there are hooks: equal but for rounding."""
    model, x = encoder(True).train(training), vectors(0)
    with torch.no_grad():
        expected = model(x)
    with gradlens.attach(model) as lens:
        with torch.no_grad():
            seen = model(x)
        backward(model, x)
        lens.step()
    torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-6)
    assert lens.recording.norms.groupby("site").size().tolist() == [1] * 5
    with torch.no_grad():
        assert torch.equal(model(x), expected)  # and after detach it takes that path again


def test_a_frozen_encoder_in_eval_mode_is_recorded_where_torch_would_take_its_fused_path():
    """No parameter needs a gradient, so that the fused path is open although gradients are enabled."""
    model, head = encoder(True).eval().requires_grad_(False), nn.Linear(WIDTH, WIDTH)
    with gradlens.attach(model) as lens:
        backward(lambda x: head(model(x)), vectors(0))
        lens.step()
    audit = lens.audit()
    if not audit.fired:
        assert any("never ran" in problem for problem in audit.problems())
    else:
        assert len(audit.fired) == 5
        assert lens.recording.norms["inv_sigma"].notna().all()
        assert lens.recording.norms["grad_output_norm"].isna().all()


def test_padding_masks_and_nested_tensors_do_not_stop_training():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(WIDTH))
    padding = torch.zeros(4, 5, dtype=torch.bool)
    padding[:2, 3:] = True
    with gradlens.attach(model) as lens:
        model.eval()
        with torch.no_grad():
            model(vectors(0), src_key_padding_mask=padding)
        model.train()
        backward(lambda x: model(x, src_key_padding_mask=padding), vectors(0))
        lens.step()
    assert (lens.recording.norms["vectors"] == 20).all()
    assert lens.audit().problems() == []


def test_a_recurrent_network_has_a_row_for_every_time_step():
    norms = record(networks.recurrent(), 2).recording.norms
    assert norms.query("site == 'norm'").groupby("step")["call"].apply(list).tolist() == [[0, 1, 2, 3, 4]] * 2
    assert norms.query("site == 'norm'")["vectors"].unique().tolist() == [4]


def test_norms_of_weights_are_no_norms_of_activations():
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)),
        nn.LayerNorm(WIDTH),
    )
    lens = record(model)
    assert lens.audit().norms == ("2",)
    assert lens.audit().problems() == []


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(WIDTH), nn.LazyBatchNorm1d())


def flat(step: int) -> torch.Tensor:
    return vectors(step)[:, 0]


def test_a_model_that_does_not_know_its_sizes_yet_is_refused_with_advice():
    """Its modules change their class in their first forward pass, its parameters have no numbers yet."""
    with pytest.raises(GradlensError, match="forward pass"):
        gradlens.attach(lazy())


def test_lazy_modules_that_have_run_are_like_any_others():
    model = lazy()
    model(flat(0))
    lens = record(model, 2, batch=flat)
    assert lens.recording.norms["kept"].notna().sum() == 2
    assert lens.audit().problems() == []


def test_a_model_without_norms_is_recorded_without_them():
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
    lens = record(model, 2)
    assert lens.recording.params.groupby("step").size().tolist() == [4, 4]
    assert lens.recording.steps["grad_norm"].notna().all()
    assert any("No normalization was found" in problem for problem in lens.audit().problems())


def test_batch_norm_momentum_and_buffers_are_left_alone():
    model, twin = twists.resnet(), twists.resnet()
    x = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    record(model, 2, batch=lambda step: x)
    for _ in range(2):
        twin(x)
    for name, buffer in twin.named_buffers():
        assert torch.equal(dict(model.named_buffers())[name], buffer), name


def test_a_norm_that_needs_no_gradient_is_not_blamed_for_having_none() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[:2].requires_grad_(False)
    with gradlens.attach(model) as lens:
        model(torch.randn(3, 4)).sum().backward()
        lens.step()
    told = lens.audit()
    assert told.without_grad_output == ()
    assert told.without_grad_input == ("1",)
    assert not any("No gradient reached" in problem for problem in told.problems())
