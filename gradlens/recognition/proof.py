"""A norm proves what it is taken for: by the output that its formula gives, then by the gradient.

Nothing is run again: the formula is held against the real input, output and gradients of one call, in float64, on a few
whole vectors. With x̂ = (x − μ)/σ, g = γ ⊙ grad_output, n = ‖x − μ‖ and σ a function of n, the gradient is

    g/σ − x̂ (g·x̂) σ'(n)/n,    minus its mean where the derivative of μ flows

and σ'(n)/n = 1/(Hσ) for σ² = n²/H + eps; the second term is absent where the derivative of σ does not flow.
"""

import itertools
from dataclasses import replace

import torch
from torch import Tensor, nn

from gradlens.recognition.kinds import NormKind
from gradlens.recognition.samples import Picks, centred, tolerance

#: Gradients are differences of larger terms: so many times the tolerance of outputs may they be off.
_GRADIENTS = 8.0


class Forward:
    """The first half of a proof: what goes in is kept, a few vectors, until the output is there.

    Args:
        kind: what the module is taken for.
        module: the norm.
        x: its input.
        gate: the tensor that is multiplied by besides, of this call.
        turn: as ``Picks`` has it.
    """

    def __init__(self, kind: NormKind, module: nn.Module, x: Tensor, gate: Tensor | None = None, turn: int = 0) -> None:
        self.kind, self.module = kind, module
        self.picks = Picks(kind, module, x, turn)
        self.x = self.picks.take(x)
        self.eps = kind.eps(module, x.dtype)
        self.dtypes = [x[..., :0], *([] if gate is None else [gate[..., :0]])]
        #: What a gate multiplies by, where it stands before.
        self.before: Tensor | None = None
        self.gain = _taken(self.picks, kind.placed_gain(module, x.dim()))
        if gate is not None and kind.gate is not None:
            factor = self.picks.take(kind.gate.factor(gate))
            if kind.gate.first:
                self.x, self.before = self.x * factor, factor
            else:
                self.gain = factor if self.gain is None else self.gain * factor
        self.bias = _taken(self.picks, kind.placed_bias(module, x.dim()))
        self.running = None
        moments = kind.running(module)
        if moments is not None:
            shape = (-1, *([1] * (x.dim() - 2))) if x.dim() > 1 else (-1,)
            self.running = tuple(self.picks.take(one.view(shape))[:, :1] for one in moments)

    def error(self, output: Tensor) -> Tensor:
        """Return by how much the formula misses the output, relative to its size: the most of all vectors, 0-dim.

        NaN where no vector can tell: none is finite, or none differs from a constant.
        """
        y = self.picks.take(output)
        self.dtypes.append(output[..., :0])
        x_hat, inverse, norm = self._normalized()
        scaled = x_hat if self.gain is None else x_hat * self.gain
        expected = scaled if self.bias is None else scaled + self.bias
        # Rounding is of the size of what was added up: the output and, before the mean was taken off, the input.
        raw = self.x if self.gain is None else self.x * self.gain
        size = _length(y) + _length(expected) + _length(raw) * inverse
        self.known = torch.isfinite(size) & (size > 0)
        if self.running is None:  # a vector of equal entries is the bias, whatever was done to it
            self.known &= norm > 1e-6 * _length(self.x)
        missed = torch.where(self.known, _length(expected - y) / size, 0.0).amax()
        self.x_hat, self.inverse, self.norm = x_hat, inverse, norm
        del self.x
        return torch.where(self.known.any(), missed, torch.nan)

    @property
    def tolerance(self) -> float:
        """How far off an output may be that is right."""
        return tolerance(*self.dtypes)

    def _normalized(self) -> tuple[Tensor, Tensor, Tensor]:
        c, norm = centred(self.x, self.kind)
        if self.running is not None:
            mean, variance = self.running
            inverse = torch.rsqrt(variance + self.eps)
            return (self.x - mean) * inverse, inverse, norm
        inverse = self.kind.inv_sigma(norm, self.picks.width, self.eps)
        return c * inverse, inverse, norm


class Backward:
    """The second half: the sample waits for the gradients of the first backward pass.

    Args:
        forward: the first half, whose error was taken.
        free: whether the derivatives that flow are to be found out, rather than known.
    """

    def __init__(self, forward: Forward, *, free: bool) -> None:
        self._of = forward
        kind = forward.kind
        flows = itertools.product((True, False), (True, False) if kind.centered else (False,))
        other = [replace(kind, scale_gradient=s, mean_gradient=m) for s, m in flows]
        #: What flows may be this, in order, and by how much the gradient then misses the one that came: 0-dim, NaN
        #: where no vector could tell; empty until it came.
        self.kinds = [kind, *(one for one in other if one != kind)] if free and forward.running is None else [kind]
        self.errors: list[Tensor] = []
        self._grad: Tensor | None = None

    @property
    def tolerance(self) -> float:
        """How far off a gradient may be that is right."""
        return _GRADIENTS * self._of.tolerance

    def grad_output(self, grad: Tensor) -> None:
        """Take the gradient of the output."""
        if self._grad is None and not self.errors:
            self._grad = self._of.picks.take(grad)
            self._of.dtypes.append(grad[..., :0])

    def grad_input(self, grad: Tensor) -> bool:
        """Take the gradient of the input; return whether it was the first, and its errors are there now."""
        if self._grad is None or self.errors:
            return False
        came, sent, self._grad = self._of.picks.take(grad), self._grad, None
        self._of.dtypes.append(grad[..., :0])
        self.errors = [self._missed(kind, sent, came, grad.dtype) for kind in self.kinds]
        return True

    def _missed(self, kind: NormKind, sent: Tensor, came: Tensor, dtype: torch.dtype) -> Tensor:
        of = self._of
        g = sent if of.gain is None else sent * of.gain
        expected = gradient(kind, g, of.x_hat, of.norm, of.inverse, of.eps, running=of.running is not None)
        size = g * of.inverse
        if of.before is not None:  # what came went through the gate besides
            expected, size = expected * of.before, size * of.before
        known = of.known & torch.isfinite(size).all(1, keepdim=True) & torch.isfinite(came).all(1, keepdim=True)
        missed, told = (torch.where(known, _length(one), 0.0).square().sum().sqrt() for one in (expected - came, size))
        # Below its smallest numbers a type has no digits.
        least = torch.finfo(dtype).smallest_normal * came.numel() ** 0.5
        return torch.where(told > 16 * least, missed / told, torch.nan)


def gradient(
    kind: NormKind, g: Tensor, x_hat: Tensor, norm: Tensor, inverse: Tensor, eps: float, *, running: bool = False
) -> Tensor:
    """Return dL/dx that a kind's formula gives, of vectors [..., H].

    Args:
        kind: how it normalizes.
        g: γ ⊙ grad_output.
        x_hat: (x − μ)/σ.
        norm: ‖x − μ‖ [..., 1].
        inverse: 1/σ [..., 1].
        eps: as it applies it.
        running: whether μ and σ are constants, of evaluation.
    """
    sent = g * inverse
    if running:
        return sent
    if kind.scale_gradient and kind.scaled:
        slope = kind.slope(norm, g.shape[-1], eps) / torch.where(norm > 0, norm, 1.0)
        sent = sent - x_hat * (g * x_hat).sum(-1, keepdim=True) * slope
    if kind.mean_gradient and kind.centered:
        sent = sent - sent.mean(-1, keepdim=True)
    return sent


def _taken(picks: Picks, tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else picks.take(tensor)


def _length(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return length


def off(error: float) -> str:
    """Say an error in words."""
    return f"{100 * error:.2g} %"
