"""Parameter gradients at the true end of backward: after reductions, before clipping and unscaling."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from gradlens.lens import sampled
from gradlens.lens.parameter_rows import IdleRows, extremes, gains, least_most_total, rows_of
from gradlens.lens.parameter_sums import NUMBERS, Sums, measure, raised, squares
from gradlens.lens.sampled import Sampler
from gradlens.lens.world import World, is_partial, local

_GAINS = ("weight_least", "weight_most", "weight_total")
#: What is kept of a parameter; a table's columns after step, name and numel.
COLUMNS = (*NUMBERS, "update_squares", "rows", "dead_rows", "idle_rows", *_GAINS, *sampled.COLUMNS)
_AT = {name: place for place, name in enumerate(COLUMNS)}
#: Most gradients that are measured again after clipping.
_REREAD = 8


class ParameterReader:
    """Reads all parameters of a model, or what this process holds of them; tied weights once, under their first name.

    Args:
        model: any module.
        world: where this process stands; parameters, or parts of them, that a process before it has are left to that.
        updates: whether to keep a copy of the weights so that the optimizer's whole change can be measured.
        optimizer: the one that is known, whose moments are read.
    """

    def __init__(
        self, model: nn.Module, world: World, updates: bool, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        self._model, self._world = model, world
        self._watch_updates, self._optimizer = updates, optimizer
        #: Whether the model has other parameters now than when the lens was attached.
        self.replaced = False
        #: The weights at the first reading in the step, each with its version.
        self._before: list[tuple[Tensor, int] | None] | None = None
        self._read: list[tuple[list[int], Sums]] = []
        #: Copies of gains, end to end, each with its length.
        self._gains_read: list[tuple[list[int], Tensor, list[int]]] = []
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
        self._gains = gains(self.names, self.parameters)
        self._rows = rows_of(model, self.parameters, self._gains)
        self._idle, self._sampler = IdleRows(), Sampler(self.parameters)
        every = model.named_parameters(remove_duplicate=False)
        #: First name to the other names of the same tensor.
        self.tied: dict[str, list[str]] = defaultdict(list)
        for name, parameter in every:
            if name != first[id(parameter)]:
                self.tied[first[id(parameter)]].append(name)

    def read(self, closely: bool = True) -> None:
        """Take the sums of all gradients and weights now; a later call in the same step replaces them.

        Args:
            closely: whether to take samples and Σ grad·w, too.
        """
        self._read, self._gains_read = [], []
        self.unreduced = {name for name, parameter in self._shared if is_partial(parameter.grad)}
        with torch.no_grad():
            for indices in self._groups(self._has_gradient):
                own = [self.parameters[i] for i in indices]
                grads = [local(p.grad) for p in own]
                sums = measure(grads, own, [self._rows[i] for i in indices], closely)
                self._read.append((indices, sums))
                gains = [i for i in indices if i in self._gains]
                if gains:
                    self._gains_read.append((gains, *extremes([self.parameters[i] for i in gains])))
            if closely:
                self._sampler.read(self._has_gradient)
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
                (index, squares([raised(self.parameters[index].grad)])) for index in [*chosen.values()][:_REREAD]
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

    def dtypes(self) -> dict[str, list[str]]:
        """Return the names of parameters that are not float32, by dtype."""
        found: dict[str, list[str]] = defaultdict(list)
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if parameter.dtype != torch.float32:
                found[str(parameter.dtype).removeprefix("torch.")].append(name)
        return dict(found)

    def any_gradient(self) -> bool:
        """Whether some parameter holds a gradient now."""
        return any(p.grad is not None for p in self.parameters)

    def pull(self) -> np.ndarray:
        """Copy what was read to the host: [parameters, len(COLUMNS)]; missing where there was no gradient."""
        out = np.full((len(self.parameters), len(COLUMNS)), np.nan)
        out[:, _AT["nonfinite"]] = 0
        with torch.no_grad():
            # All of them before the first is copied, which waits.
            rows = self._idle.count(self._read)
            state = self._optimizer.state if self._optimizer is not None else {}
            out[:, _AT["sampled"] :] = self._sampler.pull(state)
        for indices, sums in self._read:
            numbers = sums.numbers
            out[indices, : len(NUMBERS)] = (numbers.cpu().numpy() if isinstance(numbers, Tensor) else numbers).T
        for matrices, there, counts in rows:
            out[matrices, _AT["rows"]] = there
            out[np.ix_(matrices, [_AT["dead_rows"], _AT["idle_rows"]])] = counts.cpu().numpy().T
        for indices, flat, lengths in self._gains_read:
            out[np.ix_(indices, [_AT[name] for name in _GAINS])] = least_most_total(flat, lengths).T
        if self._before is not None:
            out[:, _AT["update_squares"]] = self._updates(self._before)
            self._before = None
        self.clip_coef = self._clipped(out[:, _AT["grad_squares"]])
        self._read, self._gains_read, self._after = [], [], []
        return out

    def _updates(self, before: list[tuple[Tensor, int] | None]) -> np.ndarray:
        """Return Σ (w now − w before)² of each parameter."""
        out = np.full(len(before), np.nan)
        for indices in self._groups(lambda index: before[index] is not None):
            pairs = ((self.parameters[i].detach(), before[i]) for i in indices)
            changes = [raised(now - then[0]) for now, then in pairs if then is not None]
            out[indices] = squares(changes).cpu().numpy()
        # Nobody has written to it: its optimizer has not stepped yet.
        same = [then is not None and p._version == then[1] for p, then in zip(self.parameters, before, strict=True)]
        out[np.array(same, dtype=bool) & (out == 0)] = np.nan
        return out

    def _clipped(self, before: np.ndarray) -> float:
        """Return the gradient after clipping over that before."""
        ratios = [np.sqrt(float(after.cpu()[0]) / before[index]) for index, after in self._after if before[index] > 0]
        return float(ratios[0]) if ratios and np.allclose(ratios, ratios[0], rtol=1e-3) else float("nan")

    def _has_gradient(self, index: int) -> bool:
        return self.parameters[index].grad is not None and self.names[index] not in self.unreduced

    def _groups(self, keep: Callable[[int], bool]) -> list[list[int]]:
        """Indices of parameters that can be measured together: one device, one dtype, gradients of one layout."""
        groups: dict[tuple[torch.device, torch.dtype, bool], list[int]] = defaultdict(list)
        for index, parameter in enumerate(self.parameters):
            if self.numel[index] and keep(index):
                sparse = parameter.grad is not None and local(parameter.grad).is_sparse
                groups[parameter.device, parameter.dtype, sparse].append(index)
        return list(groups.values())
