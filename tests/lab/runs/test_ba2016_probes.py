"""What the laboratory's own probes read: Table 1 of Ba et al. 2016 to 1e-9, weight norm's shares, gradients in time."""

import pytest
import torch
import torch.nn.functional as F

from gradlens.lab.models.mlp import MLP
from gradlens.lab.models.recurrent import CELLS, Recurrent
from gradlens.lab.runs.invariances import TRANSFORMS
from gradlens.lab.runs.probing import probed

#: Which changes leave the output as it is, in the table's order of columns; RMSNorm's row is Zhang & Sennrich's.
TABLE = {
    "layernorm": (True, True, False, True, False, True),
    "batch": (True, False, True, True, True, False),
    "weight": (True, False, True, False, False, False),
    "rmsnorm": (True, False, False, True, False, True),
    "none": (False,) * 6,
}


def mlp(norm: str) -> tuple[MLP, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    other = norm if norm in ("batch", "weight") else ""
    net = MLP("plain/none" if other else f"plain/{norm}", other=other, width=32, pixels=20, classes=3, eps=1e-30)
    return net, {"images": torch.rand(64, 4, 5), "labels": torch.randint(3, (64,))}


def loss(output, batch):
    return F.cross_entropy(output, batch["labels"])


@pytest.mark.parametrize("norm", TABLE)
def test_the_table_of_invariances_holds_to_1e_9(norm):
    rows = {row["name"]: row["value"] for row in probed(["invariances"], *mlp(norm), loss, 0)}
    assert [rows[name] < 1e-9 for name in TRANSFORMS] == list(TABLE[norm])
    assert all(rows[name] > 0.05 for name, holds in zip(TRANSFORMS, TABLE[norm], strict=True) if not holds)


def test_weight_norm_takes_out_of_the_gradient_what_lies_along_the_weights():
    net, batch = mlp("weight")
    own = net.linear0.parametrizations.weight
    with torch.no_grad():
        own.original0.mul_(1 + torch.rand(32, 1))  # lengths that are no longer the directions'
    rows = {row["name"]: row["value"] for row in probed(["invariances"], net, batch, loss, 0)}
    net = net.double()
    weight = net.linear0.weight.detach().requires_grad_()
    x = torch.relu(batch["images"].flatten(1).double() @ weight.T + net.linear0.bias)
    g = torch.autograd.grad(loss(net.head(torch.relu(net.linear1(x))), batch), weight)[0]
    unit = weight.detach() / weight.detach().norm(dim=1, keepdim=True)
    share = float(((g * unit).sum(dim=1) ** 2).sum() / (g**2).sum())
    assert rows["weight gradient: rescaling"] == pytest.approx(share, rel=1e-9)
    assert rows["weight gradient: kept"] == pytest.approx(1 - share, rel=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_goes_back_by_the_product_of_jacobians(cell):
    torch.manual_seed(0)
    net = Recurrent("plain", vocab=5, cell=cell, width=4)
    tokens = torch.randint(5, (1, 5))
    found = {row["name"]: row["value"] for row in probed(["through_time"], net, tokens, None, 0)}
    net = net.double()
    states, inputs = net.states(tokens[:, :-1]), net.embedding(tokens)
    last = states[-1].detach().requires_grad_()
    g = torch.autograd.grad(F.cross_entropy(net.head(last[:, :4]), tokens[:, -1]), last)[0]
    size = float(g.norm())
    for back in range(1, 4):
        at = len(states) - 1 - back
        step = lambda state, at=at: net.step(inputs[:, at + 1], state)  # noqa: E731
        jacobian = torch.autograd.functional.jacobian(step, states[at].detach())
        g = g.reshape(1, -1) @ jacobian.reshape(g.numel(), g.numel())
        assert found[f"1 x, {back} back"] == pytest.approx(float(g.norm()) / size, rel=1e-9)


def test_with_layernorm_the_size_of_the_weights_plays_no_part():
    tokens = torch.randint(5, (4, 12), generator=torch.Generator().manual_seed(1))
    for cell in CELLS:
        spread = []
        for norm in ("layernorm", "none"):
            torch.manual_seed(0)
            net = Recurrent(f"plain/{norm}", vocab=5, cell=cell, width=32)
            rows = {row["name"]: row["value"] for row in probed(["through_time"], net, tokens, None, 0)}
            ends = [rows[f"{scale:g} x, 10 back"] for scale in (0.5, 1, 2)]
            spread.append(max(ends) / min(ends))
        assert spread[0] < 1.05 < 4 < spread[1]
