"""Parameter gradients at the true end of backward: after reductions, before clipping and unscaling."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from gradlens.lens.world import World, is_partial, local

#: What is kept of a parameter; a table's columns after step, name and numel.
COLUMNS = ("grad_squares", "grad_absmax", "weight_squares", "update_squares", "nonfinite")


#: Entries below which a tensor on the host needs no kernel of its own, which would cost more than its sum.
_SMALL = 4096
#: Most gradients that are measured again after clipping.
_REREAD = 8
#: Most entries that are summed in float32 on the host; over millions that would be off by a thousandth.
_ROW = 2**16


class ParameterReader:
    """Reads all parameters of a model, or what this process holds of them; tied weights once, under their first name.

    Args:
        model: any module.
        world: where this process stands; parameters, or parts of them, that a process before it has are left to that.
        updates: whether to keep a copy of the weights so that the optimizer's change can be measured.
    """

    def __init__(self, model: nn.Module, world: World, updates: bool) -> None:
        self._model, self._world = model, world
        self._watch_updates = updates
        #: Whether the model has other parameters now than when the lens was attached.
        self.replaced = False
        #: The weights at the first reading in the step, each with its version.
        self._before: list[tuple[Tensor, int] | None] | None = None
        self._read: list[tuple[list[int], Tensor | np.ndarray]] = []
        self._after: list[tuple[int, Tensor]] = []
        #: Gradient after clipping / before, of the step that was pulled last; missing where it was not measured, or
        #: where it is not one factor (clipping by value).
        self.clip_coef = float("nan")
        #: Those whose gradient is a sum over processes that was not taken yet when backward ended: it is missing.
        self.unreduced: set[str] = set()
        self._look()

    def look_again(self) -> None:
        """Take the parameters that the model has now, which are others than before."""
        self._look()
        self.replaced = True
        self._before = None

    def _look(self) -> None:
        model, world = self._model, self._world
        named = list(model.named_parameters())
        first = {id(p): name for name, p in named}
        #: Those that other processes record, too: a sum that was not taken is missing for all of them.
        self._shared = named if world.size > 1 else []
        named = [(name, p) for name, p in named if world.holds_parameter(p)]
        self.names = tuple(name for name, _ in named)
        self.parameters = [parameter for _, parameter in named]
        self.numel = np.array([local(p).numel() for p in self.parameters], dtype=np.int64)
        every = model.named_parameters(remove_duplicate=False)
        #: First name to the other names of the same tensor.
        self.tied: dict[str, list[str]] = defaultdict(list)
        for name, parameter in every:
            if name != first[id(parameter)]:
                self.tied[first[id(parameter)]].append(name)

    def read(self) -> None:
        """Take the sums of all gradients and weights now; a later call in the same step replaces them."""
        self._read = []
        self.unreduced = {name for name, parameter in self._shared if is_partial(parameter.grad)}
        with torch.no_grad():
            for indices in self._groups(self._has_gradient):
                grads = [_raised(self.parameters[i].grad) for i in indices]
                weights = [_raised(self.parameters[i]) for i in indices]
                measure = _measure_on_host if grads[0].device.type == "cpu" else _measure
                self._read.append((indices, measure(grads, weights)))
            if self._watch_updates and self._before is None:
                # Quantized and frozen ones do not change.
                self._before = [(p.detach().clone(), p._version) if p.requires_grad else None for p in self.parameters]

    def reread(self) -> None:
        """Measure some gradients again, after clipping: a small one of each part of the model, in case only one is."""
        chosen: dict[str, int] = {}
        for index in sorted((i for indices, _ in self._read for i in indices), key=lambda i: int(self.numel[i])):
            if self.parameters[index].grad is not None:
                chosen.setdefault(self.names[index].partition(".")[0], index)
        with torch.no_grad():
            self._after = [
                (index, _squares([_raised(self.parameters[index].grad)])) for index in [*chosen.values()][:_REREAD]
            ]

    @property
    def was_read(self) -> bool:
        """Whether gradients were read since the last ``pull``."""
        return bool(self._read)

    def lacks(self, backward_ended: bool) -> Iterator[str]:
        """Yield a sentence for everything that keeps what was read from being all gradients of the model.

        Args:
            backward_ended: whether a backward pass has, in the step.
        """
        if self.replaced:
            yield (
                "Parameters were replaced or added after the lens was attached: they are read as they are now, earlier "
                "steps hold those that were there. Attach when the model is complete."
            )
        if backward_ended and not self.was_read and any(p.requires_grad for p in self.parameters):
            yield (
                "No parameter held a gradient when a backward pass had ended, and none is recorded: an optimizer that "
                "steps inside of backward drops them, torch.autograd.grad leaves none. Record without these."
            )
        if self.unreduced:
            yield (
                f"The gradients of {len(self.unreduced)} parameters ({min(self.unreduced)}, ...) are missing: sums "
                "over processes that were not taken when backward ended (DTensor, Partial); to take them would wait "
                "for the others."
            )

    def any_gradient(self) -> bool:
        """Whether some parameter holds a gradient now."""
        return any(p.grad is not None for p in self.parameters)

    def pull(self) -> np.ndarray:
        """Copy what was read to the host: [parameters, len(COLUMNS)]; missing where there was no gradient."""
        out = np.full((len(self.parameters), len(COLUMNS)), np.nan)
        out[:, COLUMNS.index("nonfinite")] = 0
        for indices, sums in self._read:
            squares, absmax, weights, bad = sums.cpu().numpy() if isinstance(sums, Tensor) else sums
            out[indices, 0], out[indices, 1], out[indices, 2], out[indices, 4] = squares, absmax, weights, bad
        if self._before is not None:
            before = self._before
            for indices in self._groups(lambda index: before[index] is not None):
                pairs = ((self.parameters[i].detach(), before[i]) for i in indices)
                changes = [_raised(now - then[0]) for now, then in pairs if then is not None]
                out[indices, 3] = _squares(changes).cpu().numpy()
            # Nobody has written to it: its optimizer has not stepped yet.
            same = [then is not None and p._version == then[1] for p, then in zip(self.parameters, before, strict=True)]
            out[np.array(same, dtype=bool) & (out[:, 3] == 0), 3] = np.nan
            self._before = None
        self.clip_coef = float("nan")
        ratios = [
            np.sqrt(float(squares.cpu()[0]) / out[index, 0]) for index, squares in self._after if out[index, 0] > 0
        ]
        if ratios and np.allclose(ratios, ratios[0], rtol=1e-3):
            self.clip_coef = float(ratios[0])
        self._read, self._after = [], []
        return out

    def _has_gradient(self, index: int) -> bool:
        return self.parameters[index].grad is not None and self.names[index] not in self.unreduced

    def _groups(self, keep: Callable[[int], bool]) -> list[list[int]]:
        """Indices of parameters that can be measured together: one device, one dtype."""
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
        for index, parameter in enumerate(self.parameters):
            if self.numel[index] and keep(index):
                groups[parameter.device, parameter.dtype].append(index)
        return list(groups.values())


def _raised(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    tensor = local(tensor)
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
        tensor = tensor if tensor.numel() else tensor.new_zeros(1)
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _squares(tensors: list[Tensor]) -> Tensor:
    """Σ x² of each tensor, [P]."""
    if tensors[0].device.type == "cpu":
        flat, starts = _flat([_rows(tensor) for tensor in tensors])
        return torch.from_numpy(np.add.reduceat(flat * flat, starts))
    return torch.stack(torch._foreach_norm(tensors)).double().square()


def _measure(grads: list[Tensor], weights: list[Tensor]) -> Tensor:
    """Σ grad², max |grad|, Σ weight², and whether a gradient is not finite, [4, P]; without a copy to the host."""
    squares = _squares(grads)
    absmax = torch.stack(torch._foreach_norm(grads, float("inf"))).double()
    # Counting entries would be two more kernels a parameter: here a 1 says that there are some.
    wrong = ~torch.isfinite(squares)
    found = [squares.masked_fill(wrong, torch.nan), absmax.masked_fill(wrong, torch.nan), _squares(weights)]
    return torch.stack([*found, wrong.double()])


def _measure_on_host(grads: list[Tensor], weights: list[Tensor]) -> np.ndarray:
    """Do the same for tensors in the host's memory, and count the entries that are not finite and leave them out."""
    out, rows, large = np.zeros((4, len(grads))), [], np.zeros(len(grads), dtype=bool)
    for i, grad in enumerate(grads):
        # One after another, so that the second pass finds the gradient in the cache. The extremes take one pass; the
        # infinity norm is many times slower on a CPU.
        rows.append(_rows(grad))
        if grad.numel() >= _SMALL:
            low, high = torch.aminmax(grad)
            out[1, i], large[i] = max(-float(low), float(high)), True
    flat, starts = _flat(rows)
    out[0] = np.add.reduceat(flat * flat, starts)
    out[1] = np.where(large, out[1], np.maximum.reduceat(np.abs(flat), starts))
    out[2] = _squares(weights).numpy()
    for i in np.flatnonzero(~np.isfinite(out[0])).tolist():
        # Only a broken step pays for the count.
        finite = grads[i][torch.isfinite(grads[i])]
        out[0, i], out[3, i] = float(finite.double().square().sum()), grads[i].numel() - finite.numel()
        out[1, i] = float(finite.abs().max()) if finite.numel() else 0.0
    return out


def _rows(x: Tensor) -> Tensor:
    """Return the entries of a tensor, of a large one its norm, or those of its parts: their squares have one sum."""
    flat = x.reshape(-1)
    if flat.numel() < _SMALL:
        return flat
    length = min(_ROW, flat.numel())
    rest = flat.numel() % length
    norms: Tensor = vector_norm(flat[: flat.numel() - rest].view(-1, length), dim=1)
    return torch.cat([norms, flat[-rest:]]) if rest else norms


def _flat(tensors: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Lay tensors of one dimension end to end, in float64, and say where each begins."""
    starts = np.cumsum([0, *(tensor.numel() for tensor in tensors[:-1])])
    return torch.cat(tensors).double().numpy(), starts
