"""Probes of a model at initialization, by name, as rows of a recording."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from gradlens.probes import PROBES

if TYPE_CHECKING:
    from gradlens.lens.initialization import LossFn


def probed(
    names: Sequence[str], model: nn.Module, batch: Any, loss_fn: "LossFn | None", seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table ``probes``, without their step, that the named probes (``PROBES``) give."""
    for name in names:
        for reading in PROBES[name](model, batch, loss_fn, seed):
            yield reading.row()
