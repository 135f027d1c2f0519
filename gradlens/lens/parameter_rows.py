"""Rows of matrices whose gradient is 0, in a step and in many, and the extremes of gains."""

from collections.abc import Container, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gradlens.lens.parameter_sums import Sums, raised, totals
from gradlens.lens.world import local, placements
from gradlens.recording.parameter_columns import IDLE

#: Many rows of fewer entries would cost more than the gradient's norm.
_LENGTH, _MANY = 8, 4096
#: Most entries of a gain.
_GAIN = 2**16


def rows_of(model: nn.Module, parameters: Sequence[Tensor], gains: Container[int]) -> list[int]:
    """Return how many rows along its first dimension each parameter has; 0 where they are not looked at.

    That is so for embeddings, whose rows are there for what a batch holds, and where a process has parts of rows. The
    entries of a gain are rows: where a norm stands before the activation, they alone tell which units are dead.

    Args:
        model: the parameters' own.
        parameters: of these.
        gains: which of them may be gains.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if "Embedding" in type(module).__name__
        for parameter in module.parameters(recurse=False)
    }
    found = []
    for i, parameter in enumerate(parameters):
        held = local(parameter)
        rows = held.shape[0] if held.dim() >= 2 or (held.dim() == 1 and i in gains) else 0
        rows = rows if id(parameter) not in embeddings else 0
        split = any(place.is_shard() and place.dim != 0 for place in placements(parameter))
        short = rows > _MANY and held.numel() < _LENGTH * rows
        found.append(0 if rows < 2 or not held.numel() or split or short else rows)
    return found


def gains(names: Sequence[str], parameters: Sequence[Tensor]) -> set[int]:
    """Return which parameters may be gains: vectors and numbers that are no biases."""
    return {
        i
        for i, (name, parameter) in enumerate(zip(names, parameters, strict=True))
        if not name.endswith(("bias", "beta"))
        and 0 < parameter.numel() <= _GAIN
        and parameter.numel() == max(parameter.shape, default=1)
    }


def extremes(weights: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    """Return a copy of gains, end to end, and the length of each: what ``least_most_total`` takes."""
    flat = [raised(weight).reshape(-1) for weight in weights]
    return torch.cat(flat), [one.numel() for one in flat]


def least_most_total(flat: Tensor, lengths: Sequence[int]) -> np.ndarray:
    """Return the least entry of each gain, the largest, and their sum: [3, P]."""
    entries, starts = flat.double().cpu().numpy(), np.cumsum([0, *lengths[:-1]])
    return np.stack([of.reduceat(entries, starts) for of in (np.minimum, np.maximum, np.add)])


class IdleRows:
    """Counts for how many recorded steps on end each row of a matrix has had no gradient."""

    def __init__(self) -> None:
        self._ages: dict[tuple[int, ...], Tensor | np.ndarray] = {}

    def count(self, read: Iterable[tuple[Sequence[int], Sums]]) -> list[tuple[list[int], list[int], Tensor]]:
        """Count the rows whose gradient is 0 in a step, and those for which it was in ``IDLE`` steps up to it.

        Args:
            read: parameters, by their numbers, and what was measured of them. Where others are measured together than
                in the step before, counting begins anew.

        Returns:
            Matrices, how many rows they have, and both counts: [2, matrices], on their device.
        """
        ages, self._ages, found = self._ages, {}, []
        for indices, sums in read:
            matrices = tuple(indices[place] for place in sums.matrices)
            if matrices:
                age = self._ages[matrices] = (ages.get(matrices, 0) + 1) * sums.dead
                masks = (torch.as_tensor(mask).double() for mask in (sums.dead, age >= IDLE))
                found.append(
                    (list(matrices), list(sums.rows), torch.stack([totals(mask, sums.rows) for mask in masks]))
                )
        return found
