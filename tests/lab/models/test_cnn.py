"""The convolutional network of the task images, in every norm."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradlens
from gradlens.errors import GradlensError, ModelError
from gradlens.lab.models.cnn import CNN
from gradlens.lab.models.plain import Plain
from gradlens.lab.norms import NORMS


def build(variant: str = "plain", **sizes: object) -> CNN:
    torch.manual_seed(0)
    return CNN(variant, **{"channels": 4, **sizes})  # type: ignore[arg-type]


def images(count: int = 3, side: int = 28) -> torch.Tensor:
    return torch.rand(count, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_gives_logits_and_a_gradient_to_every_parameter(norm: str) -> None:
    model = build(f"plain/{norm}")
    logits = model(images())
    assert logits.shape == (3, 10)
    F.cross_entropy(logits, torch.tensor([1, 2, 3])).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    assert model.describe()["norm"] == norm


def test_it_is_three_convolutions_each_with_norm_relu_and_pooling_down_to_seven_pixels() -> None:
    model = build("plain/layernorm-simple").double()
    x = images().double().unsqueeze(1)
    for i in range(3):
        a = F.conv2d(x, getattr(model, f"conv{i}").weight, getattr(model, f"conv{i}").bias, padding=1)
        mean, variance = a.mean((1, 2, 3), keepdim=True), a.var((1, 2, 3), correction=0, keepdim=True)
        x = ((a - mean) / (variance + 1e-5).sqrt()).clamp(min=0)
        if i < 2:
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
    assert x.shape == (3, 4, 7, 7)
    expected = x.flatten(1) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(images()), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_variants_built_from_one_seed_have_the_same_weights(norm: str) -> None:
    weights, reference = build(f"plain/{norm}").state_dict(), build("plain/none").state_dict()
    assert all(torch.equal(weights[name], reference[name]) for name in reference)


def test_weights_are_he_normal_and_units_keep_their_second_moment() -> None:
    model = build("plain/none", channels=64)
    for i, fan in ((1, 64 * 9), (2, 64 * 9)):
        assert float(getattr(model, f"conv{i}").weight.detach().var()) == pytest.approx(2 / fan, rel=0.05)
        assert not getattr(model, f"conv{i}").bias.any()
    assert float(model.head.weight.detach().var()) == pytest.approx(1 / (64 * 49), rel=0.05)


def test_the_lens_sees_a_vector_an_image_in_each_layer_and_no_residual_blocks() -> None:
    model = build()
    with gradlens.attach(model) as lens:
        model(images()).sum().backward()
        lens.step()
    sites = lens.recording.sites
    assert list(sites["site"]) == ["norm0", "norm1", "norm2"]
    assert list(sites["width"]) == [4 * 28**2, 4 * 14**2, 4 * 7**2]
    assert set(lens.recording.norms["vectors"]) == {3}
    assert sites["block"].isna().all()


def test_description_counts_the_parameters_and_names_the_arrangement() -> None:
    about = build(layers=2).describe()
    units = 4 * (28**2 + 14**2)
    assert about["parameters"] == (9 * 4 + 4) + (9 * 16 + 4) + 2 * units + 10 * 4 * 49 + 10
    assert (about["family"], about["arrangement"], about["layers"]) == ("cnn", "plain", 2)


def test_dropout_acts_in_training_only_and_a_model_pickles() -> None:
    model = build(dropout=0.5)
    assert not torch.equal(model(images()), model(images()))
    model.eval()
    assert torch.equal(model(images()), pickle.loads(pickle.dumps(model))(images()))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"variant": "pre-ln/adanorm"}, "got 'pre-ln/adanorm'.* Take 'plain/adanorm' here"),
        ({"variant": "post-ln"}, "got 'post-ln'.* Take 'plain' here"),
        ({"variant": "plane"}, "Did you mean plain"),
        ({"variant": "plain/adnorm"}, "Did you mean adanorm"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ],
)
def test_what_cannot_be_built_is_an_error_that_says_why(sizes: dict[str, object], message: str) -> None:
    with pytest.raises(GradlensError, match=message):
        build(**sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3, 27, 28), (28, 28), (3, 1, 28, 28)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"takes images of shape \[B, 28, 28\], got"):
        build()(torch.zeros(shape))


def test_another_network_without_blocks_is_a_subclass_that_asks_for_its_norms() -> None:
    class Net(Plain):
        def __init__(self, variant: str) -> None:
            super().__init__(variant)
            self.hidden = nn.Sequential(nn.Linear(4, 6), self.new_norm(6))

    assert Net("plain/rmsnorm").describe() == {
        "family": "plain", "arrangement": "plain", "norm": "rmsnorm", "parameters": 4 * 6 + 6 + 6,
    }  # fmt: skip
