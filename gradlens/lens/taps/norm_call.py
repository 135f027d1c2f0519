"""One call of a norm: what its first hook leaves to the second, and both to the hooks of its gradients."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradlens.lens import statistics
from gradlens.lens.hooks import is_batched
from gradlens.lens.moment_buffer import Row
from gradlens.lens.statistics import GRAD_INPUT, GRAD_OUTPUT
from gradlens.lens.taps import norm_input
from gradlens.lens.taps.evidence import Evidence
from gradlens.lens.taps.tap import sizes
from gradlens.lens.world import local, placements
from gradlens.native import vectors
from gradlens.recognition.proof import gradient

if TYPE_CHECKING:
    from gradlens.lens.taps.norm import NormTap


class NormCall:
    """One call.

    Args:
        tap: of the norm.
        module: the norm, or what a function was given.
    """

    __slots__ = (
        "_module",
        "_tap",
        "evidence",
        "gain",
        "gate",
        "graph",
        "is_plain",
        "lies",
        "look_up",
        "row",
        "waits",
        "x",
    )

    def __init__(self, tap: "NormTap", module: nn.Module) -> None:
        self._tap, self._module = tap, module
        #: Its row, where it is recorded, and whether its gradients are.
        self.row: Row | None = None
        self.graph = False
        #: The input, and how it lies across processes.
        self.x: Tensor | None = None
        self.lies: tuple[Any, ...] = ()
        #: Whether the input waits for the output, and whether that will hold its moments.
        self.waits = self.look_up = False
        #: What it has to prove.
        self.evidence: Evidence | None = None
        #: Whether γ is a parameter, which is there before the module runs.
        self.is_plain = tap.gain.is_parameter(module)
        #: γ, where it is there before the module runs; and the tensor that is multiplied by besides.
        self.gain: Tensor | None = None
        self.gate: Tensor | None = None

    def measure(self, output: Tensor | None = None) -> None:
        """Keep the moments of the input; given the output, those that its graph holds."""
        tap, module, x, row, gate = self._tap, self._module, self.x, self.row, self.gate
        assert x is not None
        assert row is not None
        tap.dtype, kind = x.dtype, tap.kind
        view, dims = kind.vectors(module, local(x.detach()) if gate is None else self._gated(x, gate))
        found = norm_input.measured(kind, module, view, dims, x.dtype)
        if found is not None:
            seen, block, facts = found
            if (kept := norm_input.rounded(output, seen.vectors)) is not None:
                vectors.put(block, norm_input.INV_SIGMA, kept)
            row.keep_block(seen, block, facts)
            return
        view = statistics.raised(view)
        shape, width = sizes(view, dims)
        moments = norm_input.saved(output, shape, width) if self.look_up else None
        facts = norm_input.facts(kind, module, width, x.dtype, from_sigma=moments is not None)
        if moments is None:
            moments = norm_input.computed(kind, module, view, dims, width, x.dtype)
            kept = norm_input.rounded(output, shape)
            moments = moments if kept is None else (*moments[:2], kept.to(moments[2].dtype))
        row.keep_input(moments, (gate is None and tap.state.known_extremes(x)) or statistics.extremes(view), facts)

    def _gated(self, x: Tensor, gate: Tensor) -> Tensor:
        """Return what is normalized where there is a gate: the input, or its product with that."""
        wide, own = statistics.raised(x), self._tap.kind.gate
        return wide if own is None or not own.first else wide * own.factor(gate)

    def on_grad_output(self) -> Callable[[Tensor], None]:
        """Return what to do with the gradient of the output."""
        assert self.x is not None
        own: Callable[[Tensor], None] = partial(self._grad_output, self.gain)
        if self.gate is not None:
            own = partial(self._gated_grad_output, self.x.detach(), self.gate)
        return own if self.evidence is None else partial(_both, self.evidence.grad_output, own)

    def _grad_output(self, gain: Tensor | None, grad: Tensor) -> None:
        if not self._is_measurable(grad):
            return
        assert self.row is not None
        self.row.measure_gradient(GRAD_OUTPUT, *self._tap.kind.vectors(self._module, local(grad.detach())), gain)

    def _gated_grad_output(self, x: Tensor, gate: Tensor, grad: Tensor) -> None:
        """Do as ``_grad_output`` where the output, or what is normalized, is a product with a gate."""
        kind, module, gain = self._tap.kind, self._module, self.gain
        assert kind.gate is not None
        assert self.row is not None
        if not kind.gate.first:
            factor, _ = kind.vectors(module, kind.gate.factor(gate))
            self._grad_output(factor if gain is None else factor * gain, grad)
            return
        self._grad_output(gain, grad)
        # What comes back went through the gate besides, where it may be lost: by the formula that was proved.
        h, dims = kind.vectors(module, self._gated(x, gate))
        g, _ = kind.vectors(module, statistics.raised(grad))
        h = h - h.mean(-1, keepdim=True) if kind.centered else h
        norm, eps = torch.linalg.vector_norm(h, dim=-1, keepdim=True), kind.eps(module, x.dtype)
        inverse = kind.inv_sigma(norm, h.shape[-1], eps)
        back = gradient(kind, g if gain is None else g * gain, h * inverse, norm, inverse, eps)
        self.row.measure_gradient(GRAD_INPUT, back, dims)

    def grad_input(self, grad: Tensor) -> None:
        """Keep the moments of the gradient of the alias."""
        tap = self._tap
        if tap.proving.over or not tap.is_norm or self.row is None:
            return
        if self.gate is not None and tap.kind.gate is not None and tap.kind.gate.first:
            return  # that of its product is there already
        if not self._is_measurable(grad):
            return
        self.row.measure_gradient(GRAD_INPUT, *tap.kind.vectors(self._module, local(grad.detach())))

    def _is_measurable(self, grad: Tensor) -> bool:
        """Whether a gradient is one, and lies across processes as the input did; to bring it there would wait."""
        tap = self._tap
        if is_batched(grad):
            tap.state.observed.transformed.add(tap.site.path)
            return False
        lies = placements(grad)
        if lies == self.lies:
            return True
        tap.unsupported(f"a gradient lies as {lies}, its input as {self.lies}")
        return False


def _both(first: Callable[[Tensor], None], second: Callable[[Tensor], None], grad: Tensor) -> None:
    first(grad)
    second(grad)
