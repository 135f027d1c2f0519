"""Components against Monte Carlo over their random matrices, backward by autograd in float64."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gradlens.theory.activations import ACTIVATIONS
from gradlens.theory.components import Attention, FeedForward, dropout, effective_sharpness
from gradlens.theory.pairs import Pairs
from tests.theory.tokens import drawn, table

D, DRAWS, HEADS = 256, 24, 4
ACTIVATION = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}
Run = tuple[Tensor, list[Tensor], dict[str, Tensor]]


def xavier(n_out: int, n_in: int, generator: torch.Generator, gain: float = 1.0) -> Tensor:
    scale = (gain * 2 / (n_in + n_out)) ** 0.5
    return (scale * torch.randn(n_out, n_in, generator=generator, dtype=torch.float64)).requires_grad_()


@dataclass
class Simulated:
    """Numbers of each draw, the draws along the first axis."""

    output: np.ndarray
    at_inputs: list[np.ndarray]
    energy: dict[str, np.ndarray]


def simulated(run: Callable[[torch.Generator], Run], outputs: Pairs, inputs: list[Pairs], g: np.ndarray) -> Simulated:
    """Products of the outputs and of the gradients at each input, energy of the gradient of each parameter."""
    rows = []
    for seed in range(DRAWS):
        generator = torch.Generator().manual_seed(seed)
        y, xs, parameters = run(generator)
        back = drawn(outputs, g, D, generator)
        gradients = torch.autograd.grad((y * back).sum(), [*xs, *parameters.values()])
        at_inputs = [table(pairs, grad) for pairs, grad in zip(inputs, gradients, strict=False)]
        rows.append((table(outputs, y), at_inputs, [float(grad.square().sum()) for grad in gradients[len(xs) :]]))
    out, at_inputs, energy = zip(*rows, strict=True)
    named = dict(zip(parameters, np.array(energy).T, strict=True))
    return Simulated(np.array(out), [np.array(tables) for tables in zip(*at_inputs, strict=True)], named)


def assert_mean(found: np.ndarray, draws: np.ndarray, rel: float, of_own: float = 0.0) -> None:
    """The draws' mean, within a share of it (and of the greatest, a token's own) and four standard errors."""
    mean, error = draws.mean(0), draws.std(0, ddof=1) / len(draws) ** 0.5
    allowed = rel * np.abs(mean) + of_own * np.nanmax(np.abs(mean)) + 4 * error
    wrong = np.abs(found - mean) > allowed
    assert not wrong.any(), (
        f"at {np.argwhere(wrong).tolist()} found {np.asarray(found)[wrong]}, simulated {mean[wrong]} ± {error[wrong]}"
    )
    assert np.nanmax(error / np.nanmax(np.abs(mean))) < 0.05  # enough draws to tell


def assert_energy(found: dict[str, np.ndarray], draws: dict[str, np.ndarray], rel: float) -> None:
    for name, energies in draws.items():
        assert_mean(found[name][0], energies, rel)


def related(pairs: Pairs, scale: float = 1.0) -> np.ndarray:
    """Tokens that share a part with all, with their sequence and with their position."""
    return scale * pairs.table(1.0, 0.5, (0.3, 0.2))


def incoherent(pairs: Pairs) -> np.ndarray:
    return pairs.table(1.0, 0.05, (0.15, 0.05))


FFNS = [("relu", 256, 1.0), ("relu", 1024, 0.5), ("gelu", 512, 1.5), ("silu", 256, 1.0)]


@pytest.mark.parametrize("inner_norm", ["", "layer_norm", "rms_norm"])
@pytest.mark.parametrize(("activation", "ffn", "gain"), FFNS)
def test_feed_forward(activation: str, ffn: int, gain: float, inner_norm: str) -> None:
    pairs = Pairs.of(2, 6, causal=True)
    x, g = related(pairs, 1.7), incoherent(pairs)

    def run(generator: torch.Generator) -> Run:
        tokens = drawn(pairs, x, D, generator).requires_grad_()
        w1, w2 = xavier(ffn, D, generator, gain), xavier(D, ffn, generator, gain)
        b1, b2 = (torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in (ffn, D))
        hidden = ACTIVATION[activation](tokens @ w1.T + b1)
        hidden = getattr(F, inner_norm)(hidden, (ffn,)) if inner_norm else hidden
        return hidden @ w2.T + b2, [tokens], {"w1.weight": w1, "w1.bias": b1, "w2.weight": w2, "w2.bias": b2}

    norm = {"inner_norm": bool(inner_norm), "centered": inner_norm != "rms_norm"}
    component = FeedForward(pairs, ACTIVATIONS[activation], width=D, ffn=ffn, gain=gain, **norm)
    draws = simulated(run, pairs, [pairs], g)
    output, kept = component.forward(x)
    assert_mean(output, draws.output, rel=0.01, of_own=0.01)
    (at_x,) = component.backward(g, kept)
    assert_mean(at_x, draws.at_inputs[0], rel=0.01, of_own=0.01)
    assert_energy(component.energies([g], [kept]), draws.energy, rel=0.01)


def attended(x: Tensor, y: Tensor, generator: torch.Generator, causal: bool, gain: float, inner_norm: bool) -> Run:
    """Four heads, written out."""
    query, key = (xavier(D, D, generator) for _ in range(2))
    value, out = (xavier(D, D, generator, gain) for _ in range(2))
    q, k, v = ((t @ w.T).unflatten(-1, (HEADS, -1)).transpose(1, 2) for t, w in ((x, query), (y, key), (y, value)))
    logits = q @ k.mT / (D / HEADS) ** 0.5
    if causal:
        logits = logits.masked_fill(torch.ones(logits.shape[-2:]).triu(1).bool(), -torch.inf)
    mixed = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    mixed = F.layer_norm(mixed, (D,)) if inner_norm else mixed
    return mixed @ out.T, [x] if y is x else [x, y], {"value.weight": value, "out.weight": out}


@pytest.mark.parametrize(("gain", "inner_norm"), [(1.0, False), (0.4, False), (1.5, True)])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "all"])
def test_self_attention(causal: bool, gain: float, inner_norm: bool) -> None:
    pairs = Pairs.of(3, 12, causal=causal)
    x, g = related(pairs), incoherent(pairs)

    def run(generator: torch.Generator) -> Run:
        tokens = drawn(pairs, x, D, generator).requires_grad_()
        return attended(tokens, tokens, generator, causal, gain, inner_norm)

    component = Attention(pairs, pairs, pairs.seen, width=D, gain=gain, inner_norm=inner_norm)
    draws = simulated(run, pairs, [pairs], g)
    output, kept = component.forward(x, x)
    assert_mean(output, draws.output, rel=0.02)
    at_query, at_key = component.backward(g, kept)
    assert_mean(at_query + at_key, draws.at_inputs[0], rel=0.08)
    assert_energy(component.energies([g], [kept]), draws.energy, rel=0.01)


@pytest.mark.parametrize(("own", "rel"), [(0.25, 0.1), (1.0, 0.35)], ids=["flat", "sharp"])
def test_attention_to_a_memory(own: float, rel: float) -> None:
    """What comes back to the queries is a tenth of what arrives; over few keys a sharp softmax makes it less still."""
    queries, memory = Pairs.of(3, 10, causal=True), Pairs.of(3, 14, causal=False)
    seen = np.tile(memory.seen[:1], (len(queries.left), 1))
    x, y, g = related(queries, own), related(memory, 1.4), incoherent(queries)

    def run(generator: torch.Generator) -> Run:
        tokens = drawn(queries, x, D, generator).requires_grad_()
        attended_to = drawn(memory, y, D, generator).requires_grad_()
        return attended(tokens, attended_to, generator, causal=False, gain=1.0, inner_norm=False)

    component = Attention(queries, memory, seen, width=D)
    draws = simulated(run, queries, [queries, memory], g)
    output, kept = component.forward(x, y)
    assert_mean(output, draws.output, rel=0.02)
    at_query, at_key = component.backward(g, kept)
    assert_mean(at_query, draws.at_inputs[0], rel)
    assert_mean(at_key, draws.at_inputs[1], rel=0.12)
    assert_energy(component.energies([g], [kept]), draws.energy, rel=0.01)


def test_a_memory_of_one_and_the_same_token_sends_nothing_to_the_queries() -> None:
    queries, memory = Pairs.of(2, 5, causal=True), Pairs.of(2, 7, causal=False)
    component = Attention(queries, memory, np.tile(memory.seen[:1], (len(queries.left), 1)), width=D)
    _, kept = component.forward(related(queries), memory.table(1.0, 1.0, (1.0, 1.0)))
    at_query, _ = component.backward(incoherent(queries), kept)
    np.testing.assert_allclose(at_query, 0, atol=1e-12)


def test_energies_of_several_blocks_are_those_of_each_by_itself() -> None:
    pairs = Pairs.of(2, 6, causal=True)
    inputs, gradients = [related(pairs), related(pairs, 1.7)], [incoherent(pairs), 0.5 * related(pairs)]
    ffn = FeedForward(pairs, ACTIVATIONS["gelu"], width=D, ffn=2 * D, inner_norm=True)
    attention = Attention(pairs, pairs, pairs.seen, width=D, inner_norm=True)
    for component, kept in (
        (ffn, [ffn.forward(x)[1] for x in inputs]),
        (attention, [attention.forward(x, x)[1] for x in inputs]),
    ):
        alone = [component.energies([g], [one]) for g, one in zip(gradients, kept, strict=True)]
        for name, energies in component.energies(gradients, kept).items():
            np.testing.assert_allclose(energies, [block[name][0] for block in alone], rtol=1e-12)


def test_dropout_adds_to_a_tokens_own_product_alone() -> None:
    pairs, draws = Pairs.of(3, 4, causal=True), []
    x = related(pairs)
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        tokens = drawn(pairs, x, D, generator)
        mask = (torch.rand(tokens.shape, generator=generator, dtype=torch.float64) > 0.2) / 0.8
        draws.append(table(pairs, tokens * mask))
    assert_mean(dropout(pairs, x, 0.2), np.array(draws), rel=0.01)


def concentration(variance: float, keys: int) -> tuple[float, float]:
    """E Σ a² over random logits, and by the theory."""
    rng = np.random.default_rng(0)
    weights = np.exp(rng.normal(0, variance**0.5, (2_000_000 // keys, keys)))
    weights /= weights.sum(-1, keepdims=True)
    grown = np.exp(float(effective_sharpness(np.array(variance), np.array(keys))) * variance)
    return float((weights**2).sum(-1).mean()), float(grown / (keys - 1 + grown))


@pytest.mark.parametrize("keys", [2, 3, 8, 32, 128, 512])
@pytest.mark.parametrize(("variance", "rel"), [(0.1, 0.01), (0.5, 0.01), (1.0, 0.03), (2.0, 0.08)])
def test_sharpness_of_a_softmax_over_few_keys(keys: int, variance: float, rel: float) -> None:
    simulated, found = concentration(variance, keys)
    assert found == pytest.approx(simulated, rel=rel)


def test_over_many_keys_a_softmax_is_as_sharp_as_its_logits() -> None:
    assert effective_sharpness(np.array(1.0), np.array(1e6)) == pytest.approx(1, abs=1e-3)
