"""Probes of a model at initialization, by name, as rows of a recording."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from gradlens.probes import PROBES
from gradlens.registry import Registry

if TYPE_CHECKING:
    from gradlens.lens.initialization import LossFn

#: Those that ask what only some networks of the zoo have, besides ``PROBES``.
OWN = Registry(
    "probe of the laboratory",
    {
        "invariances": ("gradlens.lab.runs.invariances:readings", "what the first layer of an MLP does not depend on"),
        "through_time": (
            "gradlens.lab.runs.through_time:readings",
            "the gradient of the last step's loss at earlier states of a recurrent network",
        ),
    },
)


def probed(
    names: Sequence[str], model: nn.Module, batch: Any, loss_fn: "LossFn | None", seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table ``probes``, without their step, that probes of ``PROBES`` or ``OWN`` give."""
    for name in names:
        for reading in (OWN if name in OWN else PROBES)[name](model, batch, loss_fn, seed):
            yield reading.row()
