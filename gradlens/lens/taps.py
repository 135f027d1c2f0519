"""The hooks: the only file that registers any.

A forward pre-hook hands the module an alias of its input (``x.view_as(x)``) and hooks the alias' gradient: that is
the gradient through this module only, never the sum with a skip path. A forward hook hooks the output tensor. Both
see the right tensors before in-place operations, for keyword inputs, for composite norms and inside torch.compile.
Each hook adds sums to its row: no copy to the host, no list, no branch on a value, no tensor kept but one 1/σ a vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradlens.lens import statistics
from gradlens.lens.rows import Row, RowBuffer
from gradlens.lens.sites import Site


class Switch:
    """The state all hooks of a lens share: whether this step is recorded, and on which device rows live."""

    def __init__(self) -> None:
        self.recording = True
        self.rank = 0
        self.buffers: dict[torch.device, RowBuffer] = {}
        self.unsupported: dict[str, str] = {}

    def buffer(self, device: torch.device) -> RowBuffer:
        """Return the device's row buffer, made on first use."""
        if device not in self.buffers:
            self.buffers[device] = RowBuffer(device)
        return self.buffers[device]


def in_backward() -> bool:
    """Whether autograd is running: a forward pass now is an activation checkpoint's second one."""
    return bool(torch._C._current_graph_task_id() != -1)


def first_tensor(value: Any) -> Tensor | None:
    """Return the first floating tensor in a tensor, tuple, list, mapping or dataclass; None where there is none."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, Mapping):
        value = tuple(value.values())
    elif hasattr(value, "__dataclass_fields__"):
        value = tuple(getattr(value, name) for name in value.__dataclass_fields__)
    if isinstance(value, tuple | list):
        return next((found for found in map(first_tensor, value) if found is not None), None)
    return None


class Tap(ABC):
    """Hooks of one site. ``calls`` counts its calls in the step; row k belongs to call k."""

    def __init__(self, site: Site, switch: Switch) -> None:
        self.site = site
        self.switch = switch
        self.calls = 0
        self.rows: list[Row] = []

    def row(self, tensor: Tensor) -> Row:
        """Return the row of the next call."""
        if self.calls == len(self.rows):
            self.rows.append(self.switch.buffer(tensor.device).new_row())
        row = self.rows[self.calls]
        self.calls += 1
        return row

    def new_call(self) -> None:
        """Start counting calls again, for a further step or micro-batch."""
        self.calls = 0

    @abstractmethod
    def handles(self) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""

    def fired(self) -> bool:
        """Whether any call was seen in the step."""
        return any(row.used for row in self.rows)


class NormTap(Tap):
    """Forward and backward sums of one normalization."""

    def __init__(self, site: Site, switch: Switch) -> None:
        super().__init__(site, switch)
        assert site.norm is not None
        self.kind = site.norm
        #: Between the module's two hooks: what its own body calls is seen already.
        self.inside = False
        self._now: tuple[Row, Tensor] | None = None
        #: Calls that ran without a graph: a reentrant checkpoint runs them again in backward, last first.
        self._without_graph: list[tuple[Row, Tensor]] = []

    def new_call(self) -> None:
        """Start counting calls again, for a further step or micro-batch."""
        super().new_call()
        self._without_graph.clear()

    def handles(self) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""
        module = self.site.module
        return [
            module.register_forward_pre_hook(self.before, with_kwargs=True),
            module.register_forward_hook(self.after),
        ]

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Measure the input and hand on an alias whose gradient is hooked."""
        self._now, self.inside = None, True
        if not self.switch.recording:
            return None
        x = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(x, Tensor):
            self.switch.unsupported[self.site.path] = f"its input is a {type(x).__name__}, not a tensor"
            return None
        if in_backward():
            # A checkpoint's second pass: forward sums are in, and where the first pass had a graph its hooks are armed.
            if not self._without_graph:
                return None
            row, inv_sigma = self._without_graph.pop()
        else:
            row = self.row(x)
            inv_sigma = self._measure_input(module, x, row)
        if not torch.is_grad_enabled():
            self._without_graph.append((row, inv_sigma))
            return None
        self._now = (row, inv_sigma)
        if not x.requires_grad:
            return None
        alias = x.view_as(x)
        alias.register_hook(partial(self._grad_input, row, inv_sigma, module))
        if args:
            return (alias, *args[1:]), kwargs
        return args, {**kwargs, next(iter(kwargs)): alias}

    def _measure_input(self, module: nn.Module, x: Tensor, row: Row) -> Tensor:
        """Add the forward sums; return 1/σ, the one thing the backward hooks need."""
        kind = self.kind
        view, dims = kind.vectors(module, statistics.raised(x))
        eps = kind.eps(module, x.dtype)
        mean, square, inv_sigma = statistics.input_moments(
            view, dims, eps, centered=kind.centered, scaled=kind.scaled
        )
        running = kind.running(module)
        if running is not None:
            inv_sigma = _running_inv_sigma(running[1], inv_sigma, eps)
        sums, absmax = statistics.forward_sums(view, dims, mean, square, inv_sigma)
        row.add_forward(sums, absmax, mean.numel(), statistics.width_of(view, dims))
        row.recenters = kind.mean_gradient and running is None
        return inv_sigma

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Hook the gradient of the output."""
        self.inside = False
        if self._now is None:
            return
        row, inv_sigma = self._now
        self._now = None
        y = first_tensor(output)
        if y is None:
            self.switch.unsupported[self.site.path] = f"its output is a {type(output).__name__} without a tensor"
        elif y.requires_grad:
            y.register_hook(partial(self._grad_output, row, inv_sigma, module))

    def _grad_output(self, row: Row, inv_sigma: Tensor, module: nn.Module, grad: Tensor) -> None:
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        gain = self.kind.gain(module, grad.dim())
        row.grad_output.add_(statistics.grad_output_sums(view, gain, inv_sigma, dims))
        row.vectors_grad_output.add_(inv_sigma.numel())

    def _grad_input(self, row: Row, inv_sigma: Tensor, module: nn.Module, grad: Tensor) -> None:
        view, dims = self.kind.vectors(module, statistics.raised(grad))
        row.grad_input.add_(statistics.grad_input_sums(view, inv_sigma, dims))
        row.vectors_grad_input.add_(inv_sigma.numel())


class ActivationTap(Tap):
    """Forward sums of a block's (or watched module's) output, and of the first block's input."""

    def __init__(self, site: Site, switch: Switch, tensor: str) -> None:
        super().__init__(site, switch)
        self.tensor = tensor

    def handles(self) -> list[RemovableHandle]:
        """Register the hook and return its handle."""
        module = self.site.module
        if self.tensor == "input":
            return [module.register_forward_pre_hook(self._before, with_kwargs=True)]
        return [module.register_forward_hook(self._after)]

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._measure(args or tuple(kwargs.values()))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._measure(output)

    def _measure(self, value: Any) -> None:
        if not self.switch.recording or in_backward():
            return
        x = first_tensor(value)
        if x is None or x.dim() == 0:
            self.switch.unsupported[self.site.path] = f"its {self.tensor} holds no floating tensor"
            return
        row = self.row(x)
        x, dims = statistics.raised(x), (-1,)
        mean, square, ones = statistics.input_moments(x, dims, 0.0, centered=False, scaled=False)
        row.add_forward(*statistics.forward_sums(x, dims, mean, square, ones), mean.numel(), x.shape[-1])


class RootTap:
    """Tells the lens when a forward pass begins and when the backward pass of its outputs has truly ended."""

    def __init__(self, on_forward: Callable[[], None], on_backward_end: Callable[[], None], switch: Switch) -> None:
        self.on_forward = on_forward
        self.on_backward_end = on_backward_end
        self.switch = switch
        self._armed_for = -1

    def handles(self, model: nn.Module) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""
        return [model.register_forward_pre_hook(self._before), model.register_forward_hook(self._after)]

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if not in_backward():
            self.on_forward()

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self.switch.recording:
            return
        for leaf in torch.utils._pytree.tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.requires_grad:
                leaf.register_hook(self._arm)

    def _arm(self, grad: Tensor) -> None:
        task = torch._C._current_graph_task_id()
        if task != self._armed_for:
            self._armed_for = task
            # Queued twice: DDP and FSDP finish their reductions in callbacks of the first round.
            _queue(partial(_queue, self.on_backward_end))


def _queue(callback: Callable[[], None]) -> None:
    torch.autograd.Variable._execution_engine.queue_callback(callback)  # type: ignore[attr-defined]


def _running_inv_sigma(running_var: Tensor, like: Tensor, eps: float) -> Tensor:
    """1/σ of every vector [N] from running variances [C]: N is C for batch norms, samples × C for instance norms."""
    per_channel = torch.rsqrt(running_var.detach().to(like.dtype) + eps)
    return per_channel.repeat(like.numel() // per_channel.numel())


def taps_of(site: Site, switch: Switch) -> list[Tap]:
    """Return the taps of one site."""
    if site.norm is not None:
        return [NormTap(site, switch)]
    ends = ["output"] if site.kind == "block" and not site.first_in_stack else ["input", "output"]
    return [ActivationTap(site, switch, tensor) for tensor in ends]
