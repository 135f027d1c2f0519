"""The networks of Ba et al. 2016: cells by hand and as torch has them, an MLP with each kind of norm."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.errors import ModelError, UnknownNameError
from gradlens.lab.models.mlp import MLP
from gradlens.lab.models.recurrent import CELLS, Recurrent

D, B = 6, 3


def network(cell: str, norm: str) -> Recurrent:
    torch.manual_seed(0)
    net = Recurrent(f"plain/{norm}", vocab=5, cell=cell, width=D).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
    return net


def by_hand(net: Recurrent, x: Tensor, state: Tensor) -> Tensor:
    """The paper's equations, written with functions alone."""
    p = dict(net.named_parameters())

    def norm(a: Tensor, name: str) -> Tensor:
        return F.layer_norm(a, a.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-5)

    if net.cell == "rnn":
        return torch.tanh(norm(state @ p["hidden.weight"].T + x @ p["input.weight"].T, "norm_hidden") + p["bias"])
    h = state[:, :D]
    gates = norm(h @ p["hidden.weight"].T, "norm_hidden") + norm(x @ p["input.weight"].T, "norm_input") + p["bias"]
    if net.cell == "lstm":
        f, i, o, g = gates.split(D, dim=1)
        c = f.sigmoid() * state[:, D:] + i.sigmoid() * g.tanh()
        return torch.cat([o.sigmoid() * norm(c, "norm_cell").tanh(), c], dim=1)
    z, r = gates.split(D, dim=1)
    own = norm(x @ p["candidate_input.weight"].T, "norm_candidate_input")
    own = own + r.sigmoid() * norm(h @ p["candidate_hidden.weight"].T, "norm_candidate_hidden")
    return (1 - z.sigmoid()) * h + z.sigmoid() * own.tanh()


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_is_the_papers_equation(cell):
    net = network(cell, "layernorm")
    x, state = torch.randn(B, D, dtype=torch.float64), torch.randn(B, D * (2 if cell == "lstm" else 1)).double()
    torch.testing.assert_close(net.step(x, state), by_hand(net, x, state), rtol=0, atol=1e-12)


def test_without_a_norm_a_cell_is_torchs_own():
    for cell, kind in (("rnn", nn.RNNCell), ("lstm", nn.LSTMCell), ("gru", nn.GRUCell)):
        net = network(cell, "none")
        with torch.no_grad():
            net.bias.zero_()
        own = kind(D, D, bias=False).double()
        x, h = torch.randn(B, D).double(), torch.randn(B, D).double()
        pieces = {name: [getattr(net, name).weight] for name in ("hidden", "input")}
        if cell == "lstm":  # ours are f, i, o, g; torch's i, f, g, o
            pieces = {n: [w[0].split(D)[k] for k in (1, 0, 3, 2)] for n, w in pieces.items()}
        if cell == "gru":  # torch's z keeps the state where ours lets the new one in; its order is r, z, n
            pieces = {n: [w[0].split(D)[1], -w[0].split(D)[0]] for n, w in pieces.items()}
            pieces["hidden"].append(net.candidate_hidden.weight)
            pieces["input"].append(net.candidate_input.weight)
        with torch.no_grad():
            own.weight_hh.copy_(torch.cat(pieces["hidden"]))
            own.weight_ih.copy_(torch.cat(pieces["input"]))
        if cell == "lstm":
            c = torch.randn(B, D).double()
            expected, found = torch.cat(own(x, (h, c)), dim=1), net.step(x, torch.cat([h, c], dim=1))
        else:
            expected, found = own(x, h), net.step(x, h)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_one_seed_gives_one_start_whatever_normalizes():
    made = []
    for variant, other in (("plain", ""), ("plain/none", "batch"), ("plain/none", "weight")):
        torch.manual_seed(0)
        made.append(MLP(variant, other=other, width=8, pixels=4))
    assert [type(net.norm0) for net in made] == [nn.LayerNorm, nn.BatchNorm1d, nn.Identity]
    for net in made[1:]:
        torch.testing.assert_close(net.linear1.weight, made[0].linear1.weight)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: MLP("plain", other="batch"), ModelError, "stands alone"),
        (lambda: MLP("plain/none", other="bath"), UnknownNameError, "batch"),
        (lambda: MLP("plain", width=0), ModelError, "1 or more"),
        (lambda: Recurrent("plain", vocab=5, cell="gur"), UnknownNameError, "gru"),
        (lambda: Recurrent("pre-ln", vocab=5), ModelError, "plain"),
        (lambda: Recurrent("plain", vocab=5, width=0), ModelError, "at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused(make, error, said):
    with pytest.raises(error, match=said):
        make()
