"""The row of ``steps`` of a step that is over."""

from collections.abc import Mapping
from math import isnan
from typing import Any

import numpy as np
from torch import Tensor

from gradlens.lens.parameters import ParameterReader
from gradlens.recording.schema import STORED

#: A row of which nothing is known but its number.
_UNKNOWN = {column.name: float("nan") for column in STORED["steps"] if column.dtype == "float"}


def steps_row(step: int, *, reason: str | None = None, **known: float) -> dict[str, Any]:
    """Return a row in which what is not known is missing."""
    rest: dict[str, list[Any]] = {"nan_loss": [False], "reason": [reason], "extra": [{}]}
    return {"step": [step]} | {name: [value] for name, value in (_UNKNOWN | known).items()} | rest


def fill(
    row: dict[str, Any], loss: Tensor | float | None, lr: float | None, scalars: Mapping[str, Tensor | float]
) -> None:
    """Add to a row what only the training loop knows; copies it to the host."""
    row["loss"] = [_number(loss)]
    row["nan_loss"] = [loss is not None and isnan(row["loss"][0])]
    row["lr"] = row["lr"] if lr is None else [float(lr)]
    row["extra"] = [{key: _number(value) for key, value in scalars.items()}]


def _number(value: Tensor | float | None) -> float:
    if isinstance(value, Tensor):
        value = value.detach()
    return float("nan") if value is None else float(value)


def grad_norm(params: Mapping[str, Any] | None, parameters: ParameterReader | None) -> float:
    """Return the L2 norm of all gradients; missing where a term of it is.

    Args:
        params: the step's rows of the table ``params``.
        parameters: who read them; None where parameters are not watched.
    """
    if params is None or parameters is None or parameters.unreduced:
        return float("nan")
    if params["nonfinite"].any() or np.isnan(params["grad_squares"]).all():
        return float("nan")
    return float(np.sqrt(np.nansum(params["grad_squares"])))
