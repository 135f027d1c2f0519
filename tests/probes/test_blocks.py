"""Probes of blocks and of depth: Jacobian, concentration, amplification; and the table of all probes."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gradlens.errors import GradlensError, ModelError, UnknownNameError
from gradlens.lab.models.transformer import Transformer
from gradlens.lab.models.variants import ARRANGEMENTS
from gradlens.probes import PROBES
from gradlens.probes.amplification import amplification
from gradlens.probes.block_jacobian import block_jacobian
from gradlens.probes.calls import first_calls
from gradlens.probes.concentration import concentration
from gradlens.probes.survey import survey
from tests.probes.nets import cross_entropy, mlp, transformer


@pytest.mark.parametrize("arrangement", ["pre-ln", "post-ln"])
def test_the_jacobians_largest_singular_value_is_that_of_the_dense_one(arrangement):
    model, batch = transformer(arrangement)
    model = model.double()
    call = first_calls(model, batch, ["blocks.1"])[0]
    x = call.arguments[0]
    dense = torch.autograd.functional.jacobian(lambda x: call.module(x, **call.keywords), x)
    exact = float(torch.linalg.matrix_norm(dense.reshape(x.numel(), x.numel()), ord=2))
    reading = block_jacobian(model, batch, "blocks.1", tolerance=1e-10)
    assert reading.value == pytest.approx(exact, rel=1e-6)
    assert reading.low - 1e-9 <= exact <= reading.high + 1e-9


def test_a_linear_maps_gain_is_its_spectral_norm():
    layer = nn.Linear(6, 9)
    reading = block_jacobian(nn.Sequential(layer), torch.randn(2, 6), "0", tolerance=1e-6)
    assert reading.value == pytest.approx(float(torch.linalg.matrix_norm(layer.weight, ord=2).detach()), rel=1e-4)


@pytest.mark.parametrize(
    ("site", "error", "said"),
    [("blocks.7", UnknownNameError, "Did you mean"), ("embedding", ModelError, "takes a floating tensor")],
)
def test_a_site_without_a_jacobian_is_named(site, error, said):
    model, batch = transformer()
    with pytest.raises(error, match=said):
        block_jacobian(model, batch, site)


def test_concentration_counts_the_tokens_far_from_the_mean():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.2, 0.0], [0.0, 0.5]])  # energies 1, 1, 1.44, 0.25; mean 0.9225
    model = nn.Sequential(nn.Identity())
    readings = concentration(model, x, ["0"])
    # relative distances 0.084, 0.084, 0.561, 0.729
    assert [(r.name, r.value) for r in readings] == [
        ("share beyond 0.1", 0.5),
        ("share beyond 0.25", 0.5),
        ("share beyond 0.5", 0.5),
    ]
    assert concentration(model, x, ["0"], epsilons=[0.6, 0.8])[0].value == 0.25


def test_by_default_the_streams_after_all_blocks_are_looked_at():
    model, batch = transformer("post-ln")
    assert {reading.site for reading in concentration(model, batch)} == {"blocks.0", "blocks.1"}
    plain, x = mlp()
    with pytest.raises(ModelError, match="has none"):
        concentration(plain, x)


def test_a_stream_that_a_norm_ends_is_looked_at_before_that_norm():
    model, batch = transformer("post-ln")
    before = []
    model.blocks[1].ffn_norm.register_forward_pre_hook(lambda module, args: before.append(args[0]))
    shares = [r.value for r in concentration(model, batch, epsilons=[0.05]) if r.site == "blocks.1"]
    energies = before[0].double().square().sum(-1)
    assert shares == [pytest.approx(float(((energies / energies.mean() - 1).abs() > 0.05).double().mean()))]
    assert shares[0] > 0  # behind the norm all tokens have one energy


#: Over 4 to 32 blocks: the slope of the logarithms, or last over first. Post-LN grows as N, Pre-LN and Admin as log N
#: (Liu et al. 2020); of the others it is known that they grow less than Pre-LN.
DEPTH = {
    "post-ln": ("slope", 0.8, 1.3),
    "pre-ln": ("ratio", 1.6, 3.2),
    "admin": ("ratio", 1.6, 3.2),
    "peri-ln": ("ratio", 1.3, 2.6),
    "layernorm-scaling": ("ratio", 1.2, 2.4),
    "deepnorm": ("ratio", 0.0, 2.0),
}


def over_depth(arrangement: str) -> list[float]:
    values = []
    for blocks in (4, 8, 16, 32):
        draws = []
        for seed in range(4):
            torch.manual_seed(seed)
            model = Transformer(
                arrangement, kind="encoder", vocab=200, width=128, blocks=blocks, heads=4, max_length=16
            )
            stream = "final_norm" if isinstance(model.final_norm, nn.LayerNorm) else f"blocks.{blocks - 1}"
            batch = torch.randint(200, (2, 16), generator=torch.Generator().manual_seed(seed))
            draws.append(amplification(model, batch, moved=["blocks"], draws=2, site=stream, seed=seed).value)
        values.append(float(np.mean(draws)))
    return values


@pytest.mark.parametrize("arrangement", [name for name in DEPTH if name in ARRANGEMENTS])
def test_amplification_grows_with_depth_as_the_arrangement_says(arrangement):
    what, low, high = DEPTH[arrangement]
    values = over_depth(arrangement)
    slope = np.polyfit(np.log([4, 8, 16, 32]), np.log(values), 1)[0]
    assert low <= (slope if what == "slope" else values[-1] / values[0]) <= high


def test_amplification_of_a_linear_map_is_the_variance_of_its_weights_noise():
    torch.manual_seed(0)
    model = nn.Linear(50, 40)
    x = torch.randn(64, 50)
    expected = float(model.weight.detach().var() * x.square().sum(-1).mean())  # E (dW x)² = std(W)² ‖x‖²
    reading = amplification(model, x, draws=20)
    assert reading.value == pytest.approx(expected, rel=0.05)
    assert reading.low < expected < reading.high


def test_by_default_the_blocks_weights_are_moved_and_those_of_a_model_without():
    model, batch = transformer()
    assert amplification(model, batch).value == amplification(model, batch, moved=["blocks"]).value
    assert amplification(model, batch).value < amplification(model, batch, moved=[""]).value
    assert PROBES["amplification"](model, batch, None, 0)[0].value == amplification(model, batch).value
    assert "has no blocks" in amplification(*mlp()).notes[1]


def test_matrices_of_one_value_are_not_moved_and_noted():
    model, x = mlp()
    nn.init.zeros_(model[4].weight)
    assert amplification(model, x).notes[-1] == "no noise in matrices of one value: 4.weight"
    single = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    with pytest.raises(ModelError, match="whose entries differ"):
        amplification(single, torch.ones(3, 1))


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_is_there_and_said_in_a_line(name):
    model, batch = transformer()
    readings = PROBES[name](model, batch, cross_entropy, 0)
    assert {reading.probe for reading in readings} == {name}
    assert PROBES.about(name)


def test_a_probe_that_fails_takes_nothing_from_the_others():
    model, batch = transformer()
    infinite = lambda output, batch: output.sum() * math.inf  # noqa: E731
    found = survey(model, batch, infinite)
    assert set(found.not_read) == {"learning rate", "critical_step", "sharpness", "scale_free"}
    assert all("finite loss" in why for why in found.not_read.values())
    assert found.answer is None
    assert {reading.probe for reading in found.readings} == {"amplification", "block_jacobian", "concentration"}


def test_what_is_planned_wrongly_is_no_probes_failure():
    model, batch = transformer()
    with pytest.raises(GradlensError, match="positive and finite"):
        survey(model, batch, cross_entropy, lr=-1.0)
    with pytest.raises(UnknownNameError):
        survey(model, batch, cross_entropy, optimizer="lion")
