"""The network of the task parsing, in every norm."""

import pickle

import pytest
import torch
import torch.nn.functional as F

import gradlens
from gradlens.errors import GradlensError, ModelError
from gradlens.lab.models.parser import Parser
from gradlens.lab.norms import NORMS

SIZES = {"symbols": (11, 7, 5), "places": (4, 4, 2), "transitions": 9, "width": 16}


def build(variant: str = "plain", **sizes: object) -> Parser:
    torch.manual_seed(0)
    return Parser(variant, **{**SIZES, **sizes})  # type: ignore[arg-type]


def states(count: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    parts = zip(SIZES["symbols"], SIZES["places"], strict=True)
    return torch.cat([torch.randint(most, (count, places), generator=generator) for most, places in parts], dim=1)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_gives_scores_and_a_gradient_to_every_parameter(norm: str, blocks: int) -> None:
    model = build(f"plain/{norm}", blocks=blocks)
    scores = model(states())
    assert scores.shape == (40, 9)
    F.cross_entropy(scores, torch.arange(40) % 9).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    assert model.describe()["norm"] == norm


def test_it_is_the_cube_of_a_normalized_layer_over_embeddings_put_end_to_end() -> None:
    model, rows = build("plain/layernorm-simple").double(), states()
    tables = [model.words] * 4 + [model.tags] * 4 + [model.relations] * 2
    x = torch.stack([table.weight[column] for table, column in zip(tables, rows.T, strict=True)], dim=1).flatten(1)
    assert x.shape == (40, 10 * 4)
    a = x @ model.linear0.weight.T + model.linear0.bias
    normalized = (a - a.mean(1, keepdim=True)) / (a.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(model(rows), normalized**3 @ model.head.weight.T, rtol=0, atol=1e-12)


def test_one_hidden_layer_is_cubed_as_in_the_paper_and_more_are_rectified_unless_asked_otherwise() -> None:
    for blocks, asked, expected in ((1, None, "cube"), (3, None, "relu"), (1, "relu", "relu"), (2, "cube", "cube")):
        assert build(blocks=blocks, activation=asked).describe()["activation"] == expected
    model, rows = build("plain/none", blocks=2), states()
    tables = [model.words] * 4 + [model.tags] * 4 + [model.relations] * 2
    x = torch.stack([table.weight[column] for table, column in zip(tables, rows.T, strict=True)], dim=1).flatten(1)
    x = model.linear1(model.linear0(x).clamp(min=0)).clamp(min=0)
    torch.testing.assert_close(model(rows), x @ model.head.weight.T)


@pytest.mark.parametrize("norm", NORMS)
def test_variants_built_from_one_seed_have_the_same_weights(norm: str) -> None:
    weights, reference = build(f"plain/{norm}").state_dict(), build("plain/none").state_dict()
    assert all(torch.equal(weights[name], reference[name]) for name in reference)


def test_the_right_transitions_in_a_batch_are_not_looked_at() -> None:
    model = build()
    assert torch.equal(model(states(), torch.zeros(40, dtype=torch.long)), model(states=states()))


def test_the_lens_sees_a_vector_a_state_in_each_layer_and_no_residual_blocks() -> None:
    model = build(blocks=3)
    with gradlens.attach(model) as lens:
        model(states()).pow(2).sum().backward()
        lens.step()
    sites = lens.recording.sites
    assert list(sites["site"]) == ["norm0", "norm1", "norm2"]
    assert set(sites["width"]) == {16}
    assert set(lens.recording.norms["vectors"]) == {40}
    assert sites["block"].isna().all()


def test_the_default_sizes_are_those_of_chen_and_manning() -> None:
    about = Parser("plain/none", symbols=(100, 50, 40), places=(18, 18, 12), transitions=79).describe()
    assert (about["width"], about["blocks"], about["embedding"], about["activation"]) == (200, 1, 50, "cube")
    assert about["parameters"] == 190 * 50 + (48 * 50 + 1) * 200 + 200 * 79
    assert (about["family"], about["arrangement"]) == ("parser", "plain")


def test_dropout_acts_in_training_only_and_a_model_pickles() -> None:
    model = build(dropout=0.5)
    assert not torch.equal(model(states()), model(states()))
    model.eval()
    assert torch.equal(model(states()), pickle.loads(pickle.dumps(model))(states()))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"variant": "pre-ln/adanorm"}, "got 'pre-ln/adanorm'.* Take 'plain/adanorm' here"),
        ({"variant": "plain/adnorm"}, "Did you mean adanorm"),
        ({"activation": "tanh"}, "no activation named 'tanh'"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"embedding": 0}, "embedding must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ],
)
def test_what_cannot_be_built_is_an_error_that_says_why(sizes: dict[str, object], message: str) -> None:
    with pytest.raises(GradlensError, match=message):
        build(**sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3, 9), (10,), (1, 3, 10)])
def test_states_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"takes states of shape \[N, 10\], got"):
        build()(torch.zeros(shape, dtype=torch.long))
