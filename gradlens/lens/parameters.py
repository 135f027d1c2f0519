"""Parameter gradients at the true end of backward: after reductions, before clipping and unscaling."""

import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

#: What is kept of a parameter; a table's columns after step, name and numel.
COLUMNS = ("grad_squares", "grad_absmax", "weight_squares", "update_squares", "nonfinite")


class ParameterReader:
    """Reads all parameters of a model; tied weights once, under their first name.

    Args:
        model: any module.
        updates: whether to keep a copy of the weights so that the optimizer's change can be measured.
    """

    def __init__(self, model: nn.Module, updates: bool) -> None:
        named = list(model.named_parameters())
        self.names = tuple(name for name, _ in named)
        self.parameters = [parameter for _, parameter in named]
        self.numel = np.array([p.numel() for p in self.parameters], dtype=np.int64)
        first = {id(p): name for name, p in named}
        every = model.named_parameters(remove_duplicate=False)
        #: First name to the other names of the same tensor.
        self.tied: dict[str, list[str]] = defaultdict(list)
        for name, parameter in every:
            if name != first[id(parameter)]:
                self.tied[first[id(parameter)]].append(name)
        self._watch_updates = updates
        self._before: list[Tensor] | None = None
        self._read: list[tuple[list[int], Tensor]] = []
        self._after: list[tuple[int, Tensor]] = []
        #: Gradient after clipping / before, of the step that was pulled last; missing where it was not measured, or
        #: where it is not one factor (clipping by value).
        self.clip_coef = float("nan")

    def read(self) -> None:
        """Take the sums of all gradients and weights now; a later call in the same step replaces them."""
        self._read = []
        with torch.no_grad():
            for indices in self._groups(lambda p: p.grad is not None):
                grads = [_raised(self.parameters[i].grad) for i in indices]
                squares, absmax, bad = _measure(grads)
                weights = _squares([_raised(self.parameters[i]) for i in indices])
                self._read.append((indices, torch.stack([squares, absmax, weights, bad])))
            if self._watch_updates:
                self._before = [p.detach().clone() for p in self.parameters]

    def reread(self) -> None:
        """Measure two small gradients again, after clipping: a uniform factor shows on any."""
        candidates = [i for indices, _ in self._read for i in indices if self.parameters[i].grad is not None]
        smallest = sorted(candidates, key=lambda i: self.parameters[i].numel())[:2]
        with torch.no_grad():
            self._after = [(index, _squares([_raised(self.parameters[index].grad)])) for index in smallest]

    @property
    def was_read(self) -> bool:
        """Whether gradients were read since the last ``pull``."""
        return bool(self._read)

    def any_gradient(self) -> bool:
        """Whether some parameter holds a gradient now."""
        return any(p.grad is not None for p in self.parameters)

    def pull(self) -> np.ndarray:
        """Copy what was read to the host: [parameters, len(COLUMNS)]; missing where there was no gradient."""
        out = np.full((len(self.parameters), len(COLUMNS)), np.nan)
        out[:, COLUMNS.index("nonfinite")] = 0
        for indices, sums in self._read:
            squares, absmax, weights, bad = sums.cpu().numpy()
            out[indices, 0], out[indices, 1], out[indices, 2], out[indices, 4] = squares, absmax, weights, bad
        if self._before is not None:
            changes = [p.detach() - old for p, old in zip(self.parameters, self._before, strict=True)]
            for indices in self._groups(lambda p: True):
                out[indices, 3] = _squares([_raised(changes[i]) for i in indices]).cpu().numpy()
            self._before = None
        self.clip_coef = float("nan")
        ratios = [
            np.sqrt(float(squares.cpu()[0]) / out[index, 0]) for index, squares in self._after if out[index, 0] > 0
        ]
        if ratios and np.allclose(ratios, ratios[0], rtol=1e-3):
            self.clip_coef = float(ratios[0])
        self._read, self._after = [], []
        return out

    def _groups(self, keep: Callable[[Tensor], bool]) -> list[list[int]]:
        """Indices of parameters that can be measured together: one device, one dtype."""
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
        for index, parameter in enumerate(self.parameters):
            if keep(parameter) and parameter.numel():
                groups[parameter.device, parameter.dtype].append(index)
        return list(groups.values())


def _raised(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _squares(tensors: list[Tensor]) -> Tensor:
    """Σ x² of each tensor, [P]."""
    return torch.stack(torch._foreach_norm(tensors)).double().square()


def _measure(grads: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Σ x², max |x| and the number of non-finite entries of each gradient, each [P]; non-finite entries left out."""
    if grads[0].is_cuda:
        squares = _squares(grads)
        absmax = torch.stack(torch._foreach_norm(grads, float("inf"))).double()
        # Counting entries would be two more kernels a parameter: here a 1 says that there are some.
        wrong = ~torch.isfinite(squares)
        return squares.masked_fill(wrong, torch.nan), absmax.masked_fill(wrong, torch.nan), wrong.double()
    # A parameter at a time, so that the second pass over it finds it in the cache. The extremes take one pass; the
    # infinity norm is many times slower on a CPU.
    measured = [(torch.linalg.vector_norm(grad), *torch.aminmax(grad)) for grad in grads]
    norms, low, high = (torch.stack(column).double() for column in zip(*measured, strict=True))
    squares, absmax, bad = norms.square(), torch.maximum(-low, high), torch.zeros_like(norms)
    if not math.isfinite(float(squares.sum())):
        # In the host's own memory a branch is free, and only a broken step pays for the count.
        for index in torch.nonzero(~torch.isfinite(squares)).flatten().tolist():
            finite = grads[index][torch.isfinite(grads[index])]
            bad[index] = grads[index].numel() - finite.numel()
            squares[index] = finite.double().square().sum()
            absmax[index] = finite.abs().max() if finite.numel() else 0.0
    return squares, absmax, bad
