"""How a class normalizes, written by hand from its source, and what a row of the lens must then say, in float64.

Nothing here is shared with the package. A formula is never believed: it must reproduce the class's own output, and the
gradient that autograd sends through the class.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Given = tuple[Any, ...]
#: What a number, a gain or a bias is read from: an attribute's name, the value itself, or a function of module and
#: further arguments.
Source = Any


@dataclass(frozen=True, kw_only=True)
class Formula:
    """y = gate * (gain * (u - mean) / sigma + bias), where u is the input, or what is made of it before.

    Attributes:
        axes: of u whose entries share one mean and sigma.
        groups: into how many parts axis ``at`` of u is split; each is normalized over all axes behind it, too, for
            ``at`` 1, and by itself for -1.
        at: the axis of u that gain and bias are along; their trailing axes lie behind it.
        centered: whether the mean is taken away.
        eps: in sigma.
        place: of eps: under the root, beside the root, or the least that the length of a vector is divided by.
        unbiased: whether the variance is over H - 1.
        gain: what multiplies; ``offset`` is added to it.
        offset: 1 where the parameter is a gain less one.
        bias: what is added.
        before: what is normalized, from module, input and further arguments.
        gate: what the result is multiplied with, from module and further arguments.
        after: what is done with the result last.
        spread: whether sigma is about the mean although the mean is not taken away.
        detached: whether mean and sigma are constants to autograd.
    """

    axes: tuple[int, ...] = (-1,)
    groups: Source = None
    at: int = -1
    centered: bool = True
    eps: Source = "eps"
    place: Literal["root", "beside", "floor"] = "root"
    unbiased: bool = False
    gain: Source = "weight"
    offset: float = 0.0
    bias: Source = "bias"
    before: Callable[..., Tensor] | None = None
    gate: Callable[..., Tensor] | None = None
    after: Callable[[Tensor], Tensor] | None = None
    spread: bool = False
    detached: bool = False

    def __call__(self, module: nn.Module, u: Tensor, further: Given) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
        """Return output, normalized vectors, sigma, and which axes of these are a vector's."""
        view, axes = self._vectors(module, u, further)
        mean = view.mean(axes, keepdim=True) if self.centered else torch.zeros_like(view.sum(axes, keepdim=True))
        count = view.numel() // mean.numel()
        about = view.mean(axes, keepdim=True) if self.spread else mean
        square = (view - about).square().sum(axes, keepdim=True) / (count - self.unbiased)
        eps = _read(self.eps, module, further)
        eps = torch.finfo(torch.float32).eps if eps is None else eps
        if self.place == "root":
            sigma = (square + eps).sqrt()
        elif self.place == "beside":
            sigma = square.sqrt() + eps
        else:
            sigma = square.sqrt().clamp(min=eps / count**0.5)
        if self.detached:
            mean, sigma = mean.detach(), sigma.detach()
        normalized = (view - mean) / sigma
        y = normalized.reshape(u.shape)
        gain, bias = (self._along(_read(source, module, further), u) for source in (self.gain, self.bias))
        if gain is not None:
            y = y * (gain + self.offset)
        if bias is not None:
            y = y + bias
        if self.gate is not None:
            y = y * self.gate(module, *further)
        if self.after is not None:
            y = self.after(y)
        return y, normalized, sigma, axes

    def of(self, call: "Call") -> "Formula":
        """Return the formula of a call: this one."""
        return self

    def _vectors(self, module: nn.Module, u: Tensor, further: Given) -> tuple[Tensor, tuple[int, ...]]:
        if self.groups is None:
            return u, self.axes
        groups = int(_read(self.groups, module, further))
        if self.at == -1:
            return u.reshape(*u.shape[:-1], groups, -1), (-1,)
        return u.reshape(u.shape[0], groups, -1), (-1,)

    def _along(self, value: Tensor | float | None, u: Tensor) -> Tensor | float | None:
        if not isinstance(value, Tensor):
            return value
        value = value.detach().double()
        if value.dim() != 1 or value.numel() == 1:
            return value
        return value.reshape(-1, *([1] * (u.dim() - 1 - self.at % u.dim())))


def _read(source: Source, module: nn.Module, further: Given) -> Any:
    if isinstance(source, str):
        return getattr(module, source, None)
    return source(module, *further) if callable(source) else source


@dataclass
class Call:
    """One call of a module, as a witness saw it: copies of the module, of its arguments and of what came back."""

    module: nn.Module
    x: Tensor
    further: Given
    keywords: dict[str, Any]
    output: Tensor
    needs_gradient: bool
    grad_output: Tensor | None = None


def raised(value: Any) -> Any:
    """Return a tensor of real numbers in float64, without its graph; all else as it is."""
    if isinstance(value, Tensor):
        value = value.detach().clone()
        return value.double() if value.is_floating_point() else value
    return value


class DisprovedError(AssertionError):
    """A formula is not what the class computes."""


class UnprovedError(Exception):
    """None of the formulas at hand is what a class computes."""


def expected(formula: Formula, call: Call) -> dict[str, float]:
    """Return what a row must say of a call; missing numbers are left out.

    Raises:
        DisprovedError: the formula's output or gradient is not the class's.
    """
    formula = formula.of(call)
    module = copy.deepcopy(call.module).double()
    further = tuple(raised(value) for value in (*call.further, *call.keywords.values()))
    x = raised(call.x).requires_grad_()
    with torch.enable_grad():
        u = x if formula.before is None else formula.before(module, x, *further)
        y, normalized, sigma, axes = formula(module, u, further)
        found = {"inv_sigma": float((1 / sigma).detach().mean())}
        grad = torch.randn_like(y) if call.grad_output is None else call.grad_output.double()
        if y.shape != call.output.shape:
            raise DisprovedError(f"output of shape {tuple(y.shape)}, the class's is {tuple(call.output.shape)}")
        g, grad_u, grad_x = torch.autograd.grad(y, (normalized, u, x), grad)
    _prove(call, y.detach(), grad, grad_x, float((g / sigma).detach().abs().max()))
    if call.grad_output is None:
        return found
    total, count = float(g.square().sum()), normalized.numel() // sigma.numel()
    if total == 0:  # nothing came, of which there are no shares
        return found | {
            "grad_output_norm": float(grad.norm()),
            **({"grad_input_norm": 0.0} if call.needs_gradient else {}),
        }
    mean = g.mean(axes)
    flows = formula.centered and not formula.detached
    recentering = count * float(mean.square().sum()) / total if flows else 0.0
    found |= {"recentering": recentering, "grad_output_norm": float(grad.norm())}
    if call.needs_gradient:
        through = grad_u.reshape(normalized.shape) * sigma.detach()
        kept = float(through.square().sum()) / total
        found |= {"rescaling": 1 - recentering - kept, "kept": kept, "grad_input_norm": float(grad_u.norm())}
    return found


def _prove(call: Call, y: Tensor, grad: Tensor, grad_x: Tensor, size: float) -> None:
    """Compare with the class itself, in float64 where it can; ``size`` is that of what a gradient is a sum of."""
    try:
        theirs, gradient = _run(call, grad, torch.float64)
    except RuntimeError:  # a class that makes float32 of its input cannot take another gain
        theirs, gradient = _run(call, grad, torch.float32)
    if not gradient.any() and grad.any():  # a gain of zero: every formula would do
        raise DisprovedError("the class's output does not depend on its input")
    for what, ours, own, least in (("output", y, theirs.detach(), 1e-12), ("gradient", grad_x, gradient, size)):
        off = float((ours - own).abs().max() / own.abs().max().clamp(min=max(least, 1e-30)))
        # Many classes raise to float32 and go on in it, whatever comes in.
        if not off < 2e-5:
            raise DisprovedError(f"{what} is off by {off:.2g} of its largest entry")


def _run(call: Call, grad: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return output and input gradient of the class itself, in a precision."""

    def cast(value: Any) -> Any:
        value = raised(value)
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    module, x = copy.deepcopy(call.module).to(dtype), cast(call.x).requires_grad_()
    keywords = {name: cast(value) for name, value in call.keywords.items()}
    with torch.enable_grad(), torch.random.fork_rng([]):
        y = first(module(x, *(cast(value) for value in call.further), **keywords))
        return y, torch.autograd.grad(y, x, grad.to(y.dtype))[0]


def first(output: Any) -> Tensor:
    """Return the first tensor of an output."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output
