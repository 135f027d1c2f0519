"""Faults in the networks over graphs, states, coordinates and columns."""

from typing import Any

import torch
from torch import Tensor

from tests.calibration.faults import Planted
from tests.calibration.unseen import ways
from tests.calibration.unseen.case import fault
from tests.calibration.unseen.image_faults import one_nan
from tests.calibration.unseen.networks import bellman
from tests.calibration.unseen.ways import each, filled, held, inputs, kind, labels, loss, model, once


def _graph() -> None:
    def lonely(edges: Tensor) -> Tensor:
        """Take away all that points at the first node: the mean over nobody is 0 / 0."""
        return edges[:, edges[1] != 0]

    def numbered(x: Tensor) -> Tensor:
        return torch.cat([x[:, :-1], 1000.0 * torch.arange(len(x))[:, None]], 1)

    def on(*declared: Any, **options: Any) -> None:
        fault("graph", *declared, **options)

    on("blocks in a plain list", "GL405 GL401 GL001", model(listed=True))
    on("input not added", "skip missing in one block", model(no_skip=1), at="convs.1")
    on("norm in the block and before it", "norm twice", model(twice=1), at="convs.1.norm")
    on("no norm before the head", "final norm missing", model(final=False))
    on("a node without neighbours", "NaN in a batch", inputs(lonely, which=1, once=True), at="convs.0", later=True)
    on("labels in another order", "labels shuffled", labels(lambda y: y.flip(0)))
    on("block loaded at another scale", "block that amplifies at once",
       once(ways.scaled("convs.2.update.2.weight", by=100.0)), at="convs.2", later=True)  # fmt: skip
    on("block that grows", "block that amplifies more and more",
       each(ways.scaled("convs.2.update.2.weight", by=1.1)), at="convs.2", later=True, step=False)  # fmt: skip
    on("number of the node as a feature", "input scale far too large", inputs(numbered))
    on("most of a layer dead", "most units of a layer dead", once(filled("convs.2.update.0.bias", -30.0, 0.9)),
       at="convs.2")  # fmt: skip
    on("block of zeros", "block of zeros", once(ways.scaled("convs.1", by=0.0)), at="convs.1")
    on("loss with the wrong sign", "loss with the wrong sign", kind("loss with the wrong sign"))


def _clamped(planted: Planted) -> None:
    """Clamp each gradient to a millionth, as it is computed."""
    planted.run.on_model.append(
        lambda net: [p.register_hook(lambda g: g.clamp(-1e-6, 1e-6)) for p in net.policy.parameters()]
    )


def _dqn() -> None:
    def on(*declared: Any, **options: Any) -> None:
        fault("dqn", *declared, **options)

    def in_milliseconds(state: Tensor) -> Tensor:
        return state * torch.tensor([1.0, 1.0, 1.0, 1000.0])

    def no_reward(y: Any) -> Any:
        return y[0], y[1] / 0 - y[1] / 0, y[2]

    on("states not normalized", "input scale far too large", *(inputs(lambda s: 5000 * s, i) for i in (0, 1)))
    on("time in milliseconds", "input scale far too large", *(inputs(in_milliseconds, i) for i in (0, 1)), mild=True)
    on("NaN in a state", "NaN in a batch", inputs(one_nan, once=True), later=True)
    on("NaN in the reward", "NaN in a batch", labels(no_reward), later=True)
    on("gradients clamped", "GL403 GL404", _clamped, optimizer="SGD", lr=0.05)
    on("discount above 1", "GL306", model(every=1), loss(lambda before, out, y: bellman(out, y, gamma=2.0)))
    on("optimizer of the copy", "GL405 GL404", held(lambda name: name.startswith("target")), at="policy")
    on("loss taken from a number", "loss of a detached output", kind("loss of a detached output"))
    on("loss with the wrong sign", "loss with the wrong sign", kind("loss with the wrong sign"), later=True)
    on("second layer dead", "all units of a layer dead", once(filled("policy.2.bias", -30.0)), at="policy", later=True)
    on("rate keeps growing", "rate that keeps growing", kind("rate that keeps growing"), later=True, step=False)


def _pinn() -> None:
    def at_zero(x: Tensor) -> Tensor:
        return torch.cat([0 * x[:1], x[1:]])

    def on(*declared: Any, **options: Any) -> None:
        fault("pinn", *declared, **options)

    on("places in millimetres", "input scale far too large", model(unit=1000.0), inputs(lambda x: 1000 * x))
    on("slope of a root at 0", "GL307", model(root=True), inputs(at_zero), later=True)
    on("bfloat16 weights", "bfloat16 weights stand still", ways.bfloat16, lr=2e-5)
    on("rate times 300", "rate far too large", kind("rate far too large"))
    on("rate times 30", "rate far too large", kind("rate far too large"), mild=True)
    on("rate times 0.0001", "rate far too small", kind("rate far too small"), mild=True)
    on("rate of 0", "schedule ends too early", kind("schedule ends too early"), later=True)
    on("gradients never zeroed", "gradients never zeroed", kind("gradients never zeroed"))
    on("loss with the wrong sign", "loss with the wrong sign", kind("loss with the wrong sign"), later=True)
    on("layer frozen midway", "requires_grad is False in one block",
       once(lambda net: net.hidden[1].requires_grad_(False)), at="hidden.1", later=True)  # fmt: skip
    on("layer from too large weights", "one block's initialization too large",
       once(ways.scaled("hidden.1", by=30.0)), at="hidden.1")  # fmt: skip


def _tab() -> None:
    def on(*declared: Any, **options: Any) -> None:
        fault("tab", *declared, **options)

    def in_cents(numbers: Tensor) -> Tensor:
        return numbers * torch.tensor([1e5, 1.0, 1.0, 1.0, 1.0, 1.0])

    layer = "transformer.layers.1"
    on("one column in cents", "input scale far too large", inputs(in_cents, 1))
    on("sigmoid twice", "softmax twice", loss(lambda before, out, y: before(out.sigmoid(), y)))
    on("all labels are 0", "label is constant", labels(lambda y: 0 * y))
    on("missing numbers", "NaN in a batch", inputs(one_nan, 1))
    on("ReLU behind the last layer", "GL406 GL310 GL401 GL704 GL306", model(relu=True), at="mlp")
    on("embedding detached", "detach() in the middle", model(cut=True), at="embed column")
    on("optimizer of the head", "block not in the optimizer", held(lambda name: name.startswith("mlp")),
       at="transformer embed column")  # fmt: skip
    on("columns lost", "input is lost", inputs(lambda x: 0 * x, 0), inputs(lambda x: 0 * x, 1))
    on("layer dead", "all units of a layer dead", once(filled(f"{layer}.linear1.bias", -30.0)), at=layer, later=True)
    on("layer from too large weights", "one block's initialization too large", once(ways.scaled(layer, by=30.0)),
       at=layer)  # fmt: skip


for _declare in (_graph, _dqn, _pinn, _tab):
    _declare()
