"""What goes into the model, and what the loss asks of what comes out: some rows of the output and of its gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradlens.errors import GradlensError, one_line
from gradlens.lens.hook_state import HookState
from gradlens.lens.hooks import is_batched
from gradlens.lens.output_fits import SAMPLED, Array, Kind, reduced
from gradlens.lens.passes import Counted, Forward
from gradlens.lens.statistics import raised
from gradlens.lens.taps.views import hook_output
from gradlens.lens.world import placements
from gradlens.outputs import first_tensor, tensors_of

#: Entries of rows that are kept at most: of a large vocabulary fewer rows.
_ENTRIES = 2**18
#: More classes are not asked whether softmax was taken twice: of a vocabulary nobody takes it by hand.
_TWICE = 4096
#: Entries of an input that are looked at.
_OF_INPUT = 2**16
#: Recorded steps after which what no cross-entropy fits is taken for another loss; longer where two fit alike, as they
#: do at outputs of 0.
_TRIES, _ALIKE = 3, 50
#: Successive multiples of it are spread evenly over [0, 1).
_GOLDEN = 0.6180339887498949


class Form(NamedTuple):
    """How an output may be meant: which dimension the classes are in, and of which loss the gradient is."""

    dim: int
    kind: Kind


class Seen(NamedTuple):
    """What a backward pass left of an output.

    Attributes:
        number: of the backward pass.
        site: the module that was called.
        shape: of the output, the dimension of the classes last.
        dims: how many dimensions the output had.
        form: held against.
        sampled: rows that were looked at.
        half: whether the gradient came in half precision.
        numbers: of ``reduced``.
    """

    number: int
    site: str
    shape: tuple[int, ...]
    dims: int
    form: Form
    sampled: int
    half: bool
    numbers: Tensor


class OutputTap:
    """Looks at the input and output of the outermost module that is called; ``RootTap`` calls it.

    It never raises into the model: where it fails it gives up, and the audit says so.

    Args:
        state: shared with all hooks.
        model: any module.
    """

    def __init__(self, state: HookState, model: nn.Module) -> None:
        self.state = state
        self._names = {id(module): name for name, module in model.named_modules()}
        self._seen: list[Seen] = []
        self._inputs: list[tuple[str, Forward, Tensor]] = []
        #: By module and number of dimensions: forms that an output may have yet, and how often none was told.
        self._forms: dict[tuple[str, int], list[Form]] = {}
        self._untold: dict[tuple[str, int], tuple[int, int]] = {}
        self._places: dict[tuple[tuple[int, ...], int, torch.device], tuple[Tensor, ...]] = {}
        self.silent = False

    # ------------------------------------------------------------------ what the root's hooks call

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Look at the input."""
        if self.state.recording and self.state.closely:
            self._try(self._input, module, args)

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Keep rows of the output until its gradient comes."""
        if torch.is_grad_enabled() and self.state.closely:
            self._try(self._output, module, args, output)

    def _try(self, look: Callable[..., None], *args: Any) -> None:
        # What a transform of torch.func wraps does not outlive it, and a trace would hold what is done here.
        if self.silent or torch._C._functorch.get_interpreter_stack() or torch._C._get_tracing_state() is not None:
            return
        try:
            look(*args)
        except Exception as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Give up, for something here raised."""
        if self.state.guard.strict:
            raise GradlensError(f"A hook of the lens failed at the model's output: {one_line(error)}.") from error
        if not self.silent:
            self.state.observed.unsupported["the model's output"] = (
                f"a hook failed in step {self.state.step} ({one_line(error)}), and it is silent since"
            )
        self.silent = True
        self.forget()

    def _input(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        site, x = self._names[id(module)], args[0] if args else None
        if not isinstance(x, Tensor) or not x.is_floating_point() or _unreadable(x) or not self.state.world.holds(x):
            return
        with torch.no_grad():
            # An odd step meets every column of a table.
            flat = raised(x.detach().reshape(-1)[:: max(1, x.numel() // _OF_INPUT) | 1])
            finite = torch.isfinite(flat)
            entries = torch.where(finite, flat, 0.0)
            absolute = entries.abs()
            sums = [finite.sum(), entries.sum(), (entries * entries).sum(), (absolute > 0).sum(), absolute.max()]
            self._inputs.append((site, self.state.forward, torch.stack([one.to(flat.dtype) for one in sums])))

    def _output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        z = _logits(output)
        if z is None or not self.state.world.holds(z):
            return
        site, forward = self._names[id(module)], self.state.forward
        forms = self._forms.get((site, z.dim())) or _forms(z)
        with torch.no_grad():
            kept = {dim: self._rows(z, dim) for dim in {form.dim for form in forms}}
        shape, half = tuple(z.shape), z.dtype in (torch.float16, torch.bfloat16)

        def came(g: Tensor) -> None:
            if self.silent or not self.state.recording or is_batched(g):
                return
            number = self.state.arm(forward, whole=True).number
            with torch.no_grad():
                for form in forms:
                    rows = kept[form.dim]
                    numbers = reduced(raised(rows), raised(self._rows(g, form.dim)), form.kind)
                    last = _last(shape, form.dim)
                    self._seen.append(Seen(number, site, last, len(shape), form, len(rows), half, numbers))

        x = first_tensor(args)
        hook_output(z, z.new_empty(0) if x is None else x, came, self.failed)

    def _rows(self, tensor: Tensor, dim: int) -> Tensor:
        """Return rows at evenly spaced places, [n, C]; a copy."""
        moved = tensor.detach().movedim(dim, -1)
        key = (tuple(moved.shape), dim, tensor.device)
        if key not in self._places:
            if len(self._places) >= _ALIKE:  # batches of ever other lengths
                self._places.clear()
            self._places[key] = _evenly(moved)
        return moved[self._places[key]]

    # ------------------------------------------------------------------ what the step calls

    def pull(self, counted: Counted) -> tuple[list[tuple[Seen, Array]], list[tuple[str, Array]]]:
        """Copy what counts of the step to the host, and begin the next: of outputs, and of inputs by module."""
        seen = [one for one in self._seen if one.number in counted.numbers]
        inputs = [(site, sums) for site, forward, sums in self._inputs if counted.counts(forward)]
        self.forget()
        found = on_host([*(one.numbers for one in seen), *(sums for _, sums in inputs)])
        values = found[len(seen) :]
        return list(zip(seen, found, strict=False)), [(site, v) for (site, _), v in zip(inputs, values, strict=True)]

    def forget(self) -> None:
        """Let go of what the step has left."""
        self._seen, self._inputs = [], []

    def told(self, site: str, dims: int, fixed: Form | None, alike: bool, first: Form) -> None:
        """Hear what a step told of an output's form.

        Args:
            site: of the module.
            dims: how many the output has.
            fixed: the form; None where the step did not tell.
            alike: whether it did not because several fit.
            first: what it is taken for after some such steps.
        """
        none, several = self._untold.get((site, dims), (0, 0))
        none, several = none + (not alike), several + alike
        self._untold[site, dims] = none, several
        if fixed is not None or none >= _TRIES or several >= _ALIKE:
            self._forms[site, dims] = [fixed or first]


def _logits(output: Any) -> Tensor | None:
    """Return the one tensor of an output that may hold classes, and needs a gradient; None where it is not one."""
    named = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    tensors = tensors_of(output if named is None else named)
    tensors = [tensor for tensor in tensors if tensor.requires_grad and not tensor.is_leaf and tensor.dim() >= 2]
    return tensors[0] if len(tensors) == 1 and not _unreadable(tensors[0]) else None


def _unreadable(tensor: Tensor) -> bool:
    return bool(tensor.numel() == 0 or tensor.layout != torch.strided or tensor.is_nested or placements(tensor))


def _forms(z: Tensor) -> list[Form]:
    """Return how an output may be meant, the likeliest first: of images the classes are in dimension 1."""
    dims = [1] if z.dim() == 2 else [z.dim() - 1, 1] if z.dim() == 3 else [1, z.dim() - 1]
    found = []
    for dim in dims:
        classes = z.shape[dim]
        kinds: tuple[Kind, ...] = ("softmax", "twice", "binary") if classes > 1 else ("binary",)
        found += [Form(dim, kind) for kind in kinds if kind != "twice" or classes <= _TWICE]
    return found


def _last(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return (*shape[:dim], *shape[dim + 1 :], shape[dim])


def _evenly(rows: Tensor) -> tuple[Tensor, ...]:
    """Return the places of rows, an index a dimension but the last: one in each of equal parts, all over it in turn.

    At equal distances they might all be of one position in a sequence.
    """
    count = rows.numel() // rows.shape[-1]
    number = min(count, SAMPLED, max(1, _ENTRIES // rows.shape[-1]))
    place = torch.arange(number, device=rows.device)  # made there: to copy it would wait for the device
    flat = ((place + (place * _GOLDEN) % 1.0) * (count / number)).long().clamp_max(count - 1)
    return torch.unravel_index(flat, rows.shape[:-1])


def on_host(numbers: list[Tensor]) -> list[Array]:
    """Copy numbers to the host, one copy a device and precision."""
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, one in enumerate(numbers):
        groups.setdefault((one.device, one.dtype), []).append(index)
    found: dict[int, Array] = {}
    for indices in groups.values():
        parts = [numbers[index] for index in indices]
        flat = torch.cat([part.reshape(-1) for part in parts]).cpu().double().numpy()
        split = np.split(flat, np.cumsum([part.numel() for part in parts])[:-1])
        found |= {i: own.reshape(tuple(part.shape)) for i, own, part in zip(indices, split, parts, strict=True)}
    return [found[index] for index in range(len(numbers))]
