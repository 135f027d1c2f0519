"""The hooks: the only file that registers any.

A forward pre-hook hands the module an alias of its input (``x.view_as(x)``) and hooks the alias' gradient: that is
the gradient through this module only, never the sum with a skip path. A forward hook hooks the output tensor. Both
see the right tensors before in-place operations, for keyword inputs, for composite norms and inside torch.compile.
Each hook writes a few numbers a vector into its row: no copy to the host, no branch on a value, no activation kept.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradlens.lens import statistics
from gradlens.lens.hooks import Hook, at_end_of_backward, first_tensor, hook_gradient, in_backward
from gradlens.lens.rows import Row, RowBuffer
from gradlens.lens.sites import Site


class Switch:
    """The state all hooks of a lens share: whether this step is recorded, and on which device rows live."""

    def __init__(self, rank: int) -> None:
        self.recording = True
        self.rank = rank
        #: Set when the optimizer has stepped: the next call of any module begins a further step.
        self.stepped = False
        #: Whether the end of this step's backward pass will be known from the root's output.
        self.root_seen = False
        self.on_forward: Callable[[], None] = lambda: None
        self.on_backward_end: Callable[[], None] = lambda: None
        self._armed_for = -1
        self.buffers: dict[torch.device, RowBuffer] = {}
        self.unsupported: dict[str, str] = {}

    def drain(self) -> None:
        """Turn all pending moments into sums."""
        for buffer in self.buffers.values():
            buffer.drain()

    def records_call(self) -> bool:
        """Whether the call that begins now is to be recorded; it may be the first of a further step."""
        if self.stepped and torch.is_grad_enabled() and not in_backward():
            self.on_forward()
        return self.recording

    def arm(self, grad: Tensor | None = None) -> None:
        """Ask, once a backward pass, to be told of its end."""
        task = torch._C._current_graph_task_id()
        if task != self._armed_for:
            self._armed_for = task
            # Queued twice: DDP and FSDP finish their reductions in callbacks of the first round.
            at_end_of_backward(partial(at_end_of_backward, self.on_backward_end))

    def buffer(self, device: torch.device) -> RowBuffer:
        """Return the device's row buffer, made on first use."""
        if device not in self.buffers:
            self.buffers[device] = RowBuffer(device)
        return self.buffers[device]


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


class NormTap(Tap):
    """Forward and backward sums of one normalization."""

    def __init__(self, site: Site, switch: Switch) -> None:
        super().__init__(site, switch)
        assert site.norm is not None
        self.kind = site.norm
        #: Between the module's two hooks: what its own body calls is seen already.
        self.inside = False
        self._now: Row | None = None
        self._input: Tensor | None = None
        self._dims: dict[int, tuple[int, ...]] = {}
        #: Calls that ran without a graph: a reentrant checkpoint runs them again in backward, last first.
        self._without_graph: list[Row] = []

    def new_call(self) -> None:
        """Start counting calls again, for a further step or micro-batch."""
        super().new_call()
        self._without_graph.clear()

    def handles(self) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""
        module = self.site.module
        return [
            module.register_forward_pre_hook(Hook(self.before), with_kwargs=True),
            module.register_forward_hook(Hook(self.after)),
        ]

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Measure the input and hand on an alias whose gradient is hooked."""
        self._now, self._input, self.inside = None, None, True
        if not self.switch.records_call():
            return None
        x = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(x, Tensor):
            self.switch.unsupported[self.site.path] = f"its input is a {type(x).__name__}, not a tensor"
            return None
        if x.numel() == 0:
            return None
        if in_backward():
            # A checkpoint's second pass: its input is measured, and where the first pass had a graph it is hooked.
            if not self._without_graph:
                return None
            row = self._without_graph.pop()
        else:
            row = self.row(x)
            if _keeps_moments(module):
                self._input = x
            else:
                self._measure_input(module, x, row)
        if not torch.is_grad_enabled():
            self._without_graph.append(row)
            return None
        self._now = row
        if not x.requires_grad:
            return None
        alias = x.view_as(x)
        hook_gradient(alias, partial(self._grad_input, row, module))
        if args:
            return (alias, *args[1:]), kwargs
        return args, {**kwargs, next(iter(kwargs)): alias}

    def _begin(self, module: nn.Module, x: Tensor, row: Row) -> tuple[Tensor, tuple[int, ...], int]:
        """Make room in the row, note the extremes of the input; return its view, entry dimensions and H."""
        view, dims = self._view(module, statistics.raised(x))
        vectors, width = _sizes(view, dims)
        row.begin(vectors, width, view.dtype)
        row.eps, row.centered = self.kind.eps(module, x.dtype), self.kind.centered
        torch.aminmax(view, out=row.extremes)
        return view, dims, width

    def _measure_input(self, module: nn.Module, x: Tensor, row: Row) -> None:
        view, dims, width = self._begin(module, x, row)
        statistics.write_input(view, dims, self.kind.centered, row.cells)
        running = self.kind.running(module)
        if running is not None:
            # [channels], broadcast over samples where every sample's channel is a vector of its own.
            row.cells[statistics.INV_SIGMA].copy_(torch.rsqrt(running[1].detach() + row.eps))
        elif self.kind.scaled:
            statistics.write_inv_sigma(width, row.eps, row.cells)
        row.recenters = self.kind.mean_gradient and running is None
        row.from_sigma = False

    def _take_moments(self, module: nn.Module, x: Tensor, row: Row, output: Any) -> None:
        """Take mean and 1/σ from the layer's own backward node, where they wait anyway; else measure the input."""
        node: Any = getattr(output, "grad_fn", None)
        kept = type(node).__name__ == "NativeLayerNormBackward0"
        if kept and node._saved_result2.dtype in (torch.float32, torch.float64):
            self._begin(module, x, row)
            row.cells[statistics.MEAN].copy_(node._saved_result1.view_as(row.cells[0]))
            row.cells[statistics.INV_SIGMA].copy_(node._saved_result2.view_as(row.cells[0]))
            row.recenters = row.from_sigma = True
        else:
            self._measure_input(module, x, row)

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Hook the gradient of the output."""
        self.inside = False
        if self._input is not None:
            x, self._input = self._input, None
            self._take_moments(module, x, self.rows[self.calls - 1], output)
        if self._now is None:
            return
        row, self._now = self._now, None
        y = first_tensor(output)
        if y is None:
            why = f"its output is a {type(output).__name__} without a tensor"
            self.switch.unsupported[self.site.path] = why
        elif y.requires_grad:
            hook_gradient(y, partial(self._grad_output, row, module))

    def _view(self, module: nn.Module, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """``kind.vectors``, remembered where the view is the tensor itself."""
        dims = self._dims.get(x.dim())
        if dims is not None:
            return x, dims
        view, dims = self.kind.vectors(module, x)
        if view is x:
            self._dims[x.dim()] = dims
        return view, dims

    def _grad_output(self, row: Row, module: nn.Module, grad: Tensor) -> None:
        view, dims = self._view(module, statistics.raised(grad))
        if not self.switch.root_seen:
            self.switch.arm()
        statistics.write_grad_output(view, self.kind.gain(module, grad.dim()), dims, row.cells)
        row.backward_pending = True

    def _grad_input(self, row: Row, module: nn.Module, grad: Tensor) -> None:
        view, dims = self._view(module, statistics.raised(grad))
        statistics.write_grad_input(view, dims, row.cells)
        row.backward_pending = True


class ActivationTap(Tap):
    """Moments of a block's (or watched module's) output, and of the first block's input."""

    def __init__(self, site: Site, switch: Switch, tensor: str) -> None:
        super().__init__(site, switch)
        self.tensor = tensor

    def handles(self) -> list[RemovableHandle]:
        """Register the hook and return its handle."""
        module = self.site.module
        if self.tensor == "input":
            return [module.register_forward_pre_hook(Hook(self._before), with_kwargs=True)]
        return [module.register_forward_hook(Hook(self._after))]

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._measure(args or tuple(kwargs.values()))

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._measure(output)

    def _measure(self, value: Any) -> None:
        if in_backward() or not self.switch.records_call():
            return
        x = first_tensor(value)
        if x is None or x.dim() == 0:
            if self.tensor == "output":
                self.switch.unsupported[self.site.path] = "its output holds no floating tensor"
            return
        if x.numel() == 0:
            return
        row = self.row(x)
        x = statistics.raised(x)
        statistics.write_input(x, (-1,), False, row.begin(x.shape[:-1], x.shape[-1], x.dtype))
        torch.aminmax(x, out=row.extremes)


class RootTap:
    """Tells the lens when a forward pass begins and when the backward pass of its outputs has truly ended."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self._suspended = False

    def handles(self, model: nn.Module) -> list[RemovableHandle]:
        """Register the hooks and return their handles."""
        return [
            model.register_forward_pre_hook(Hook(self._before)),
            model.register_forward_hook(Hook(self._after), always_call=True),
        ]

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if in_backward():
            return
        if not torch.is_grad_enabled():
            # An evaluation: it belongs to no training step, and must not close one.
            self._suspended, self.switch.recording = self.switch.recording, False
        else:
            self.switch.on_forward()

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._suspended:
            self._suspended, self.switch.recording = False, True
            return
        if not self.switch.recording:
            return
        leaves = torch.utils._pytree.tree_leaves(output)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        only = first_tensor(output)
        for tensor in tensors or ([] if only is None else [only]):
            if tensor.requires_grad:
                self.switch.root_seen = True
                hook_gradient(tensor, self.switch.arm)


def _sizes(view: Tensor, dims: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return the sizes of the vector dimensions, and H."""
    entries = [dim % view.dim() for dim in dims]
    width = 1
    for dim in entries:
        width *= view.shape[dim]
    return tuple(size for dim, size in enumerate(view.shape) if dim not in entries), width


def _keeps_moments(module: nn.Module) -> bool:
    """Whether the module's backward node will hold mean and 1/σ in the open: torch's own LayerNorm, in eager mode.

    Hooks on saved tensors (checkpoints, offloading) would be triggered by looking.
    """
    return (
        isinstance(module, nn.LayerNorm)
        and type(module).forward is nn.LayerNorm.forward
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and torch._C._autograd._top_saved_tensors_default_hooks(False) is None
    )


def taps_of(site: Site, switch: Switch) -> list[Tap]:
    """Return the taps of one site."""
    if site.norm is not None:
        return [NormTap(site, switch)]
    ends = ["output"] if site.kind == "block" and not site.first_in_stack else ["input", "output"]
    return [ActivationTap(site, switch, tensor) for tensor in ends]
