"""Two implementations of one model: the same weights, one pass of each, and how far each place is off."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.batches import run_model
from gradlens.outputs import first_tensor, loss_of
from gradlens.recording.alignment import Alignment, aligned

LossFn = Callable[[Any, Any], Tensor]
#: Of a parameter's gradient, in units of the mean over all: what is below is 0 but for rounding.
_FLOOR = 1e-2
#: Stands for a call's number where a gradient is a parameter's.
_ITSELF = -1


def share_weights(first: nn.Module, second: nn.Module) -> Alignment:
    """Copy the first model's parameters and buffers into the second's where names and shapes map.

    Returns:
        What maps, and what does not.
    """
    ours, theirs = first.state_dict(), second.state_dict()
    found = aligned(*({name: tuple(tensor.shape) for name, tensor in state.items()} for state in (ours, theirs)))
    with torch.no_grad():
        for own, name in found.pairs.items():
            theirs[name].copy_(ours[own])
    return found


def differences(
    first: nn.Module, second: nn.Module, names: Alignment, batch: Any, loss_fn: LossFn | None, seed: int
) -> list[dict[str, Any]]:
    """Run both forward and backward, and return how far each place of the second is from the same of the first.

    In float64 where both can, so that rounding hides nothing; the models are of no other use afterwards.

    Args:
        first: one model.
        second: another, with the first's weights.
        names: parameters of the first to those of the second.
        batch: what both are run on.
        loss_fn: as in ``at_init``.
        seed: of the random numbers that each draws.

    Returns:
        Rows of the table ``probes``, outputs in forward order, then gradients in backward order: ‖a - b‖ over the
        larger of ‖a‖ and ‖b‖, of a parameter's gradient over no less than a hundredth of what the whole gradient's
        norm gives as many entries.
    """
    run = partial(_run, batch=batch, loss_fn=loss_fn, seed=seed)
    with _in_float64(first), _in_float64(second):
        try:
            return _rows(run(first, double=True), run(second, double=True), names, "float64")
        except Exception:  # whatever a model raises that was written for one precision
            pass
    return _rows(run(first), run(second), names, "own")


@dataclass
class _Seen:
    """What one pass showed, in order.

    Attributes:
        outputs: (module, call) to its output.
        gradients: (module, call) to the gradient there, and (parameter, ``_ITSELF``) to its own.
    """

    outputs: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    gradients: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def output(self, path: str, *call: Any) -> None:
        """Keep the output of a module: a forward hook."""
        out = first_tensor(call[-1])
        if out is not None:
            number = next(n for n in count() if (path, n) not in self.outputs)
            self.outputs[path, number] = out.detach().clone()
            if out.requires_grad:
                out.register_hook(partial(self.gradient, path, number))  # type: ignore[no-untyped-call]

    def gradient(self, path: str, number: int, gradient: Tensor) -> None:
        """Keep a gradient: a hook of a tensor."""
        self.gradients[path, number] = gradient.detach().clone()

    def parameter(self, name: str, parameter: Tensor) -> None:
        """Keep a parameter's gradient: a hook for when it is whole."""
        assert parameter.grad is not None
        self.gradients[name, _ITSELF] = parameter.grad.detach().clone()


def _run(model: nn.Module, *, batch: Any, loss_fn: LossFn | None, seed: int, double: bool = False) -> _Seen:
    """Run forward and backward once, and return what every module showed."""
    seen = _Seen()
    handles = [module.register_forward_hook(partial(seen.output, path)) for path, module in model.named_modules()]
    for name, parameter in model.named_parameters():
        parameter.grad = None
        if parameter.requires_grad:
            handle = parameter.register_post_accumulate_grad_hook(partial(seen.parameter, name))  # type: ignore[no-untyped-call]
            handles.append(handle)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def placed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(device, torch.float64 if double and value.is_floating_point() else value.dtype)

    placed_batch = torch.utils._pytree.tree_map(placed, batch)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            loss, _ = loss_of(run_model(model, placed_batch), placed_batch, loss_fn)
            loss.backward()  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
    return seen


@contextmanager
def _in_float64(model: nn.Module) -> Iterator[None]:
    """Have all floating weights in float64; each is what it was afterwards, bit for bit."""
    tensors = [t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point()]
    before = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.grad = None
            tensor.data = tensor.data.double()
        yield
    finally:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.grad = None
            tensor.data = data


def _rows(one: _Seen, other: _Seen, names: Alignment, precision: str) -> list[dict[str, Any]]:
    """Hold what two passes showed against each other, by the second's names."""
    shapes = ({path: tuple(x.shape) for (path, call), x in seen.outputs.items() if not call} for seen in (one, other))
    # A module whose weights map is the same too, whatever both are called.
    modules = {own.rpartition(".")[0]: name.rpartition(".")[0] for own, name in names.pairs.items()}
    modules |= {"": "", **aligned(*shapes).pairs}
    outputs = {(modules[path], call): out for (path, call), out in one.outputs.items() if path in modules}
    alike = {key for key, out in outputs.items() if key in other.outputs and out.shape == other.outputs[key].shape}
    places = {key: _apart(out, other.outputs[key]) for key, out in outputs.items() if key in alike}
    gradients = {
        (names.pairs[name] if call == _ITSELF else modules[name], call): gradient
        for (name, call), gradient in one.gradients.items()
        if name in (names.pairs if call == _ITSELF else modules)
    }
    own = [g for (_, call), g in gradients.items() if call == _ITSELF]
    mean = sum(float(g.double().square().sum()) for g in own) ** 0.5 / max(1, sum(g.numel() for g in own)) ** 0.5
    rows = [_row(site, "output", call, value, precision) for (site, call), value in places.items()]
    parameters = set(names.pairs.values())
    for key in dict.fromkeys([*gradients, *other.gradients]):
        site, call = key
        a, b = gradients.get(key), other.gradients.get(key)
        known = a if a is not None else other.gradients[key]
        if site in parameters if call == _ITSELF else key in places:
            floor = _FLOOR * mean * known.numel() ** 0.5 if call == _ITSELF else 0.0
            what = "gradient" if call == _ITSELF else "gradient at the output"
            rows.append(_row(site, what, call, _apart(a, b, floor), precision))
    return rows


def _row(site: str, what: str, call: int, value: float, precision: str) -> dict[str, Any]:
    name = what if call < 1 else f"{what} of call {call + 1}"
    return {
        "probe": "same_weights", "site": site, "name": name, "value": value, "low": math.nan, "high": math.nan,
        "unit": f"of the norm, {precision}",
    }  # fmt: skip


def _apart(one: Tensor | None, other: Tensor | None, floor: float = 0.0) -> float:
    """Return ‖a - b‖ over the larger norm; 1 where one of them is absent, or finite where the other is not."""
    if one is None or other is None:
        norm = float((other if one is None else one).double().norm())  # type: ignore[union-attr]
        return norm / max(norm, floor) if norm else 0.0
    a, b = one.double(), other.double()
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()):
        return 1.0
    a, b = a.where(finite, 0.0), b.where(finite, 0.0)
    largest = max(float(a.norm()), float(b.norm()), floor)
    return float((a - b).norm()) / largest if largest else 0.0
