"""Probes of a model at initialization, by name; ``gradlens.probes`` is imported where one is used."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

if TYPE_CHECKING:
    from gradlens.lens.initialization import LossFn
    from gradlens.probes.reading import Reading

_Probe: TypeAlias = "Callable[[nn.Module, Any, LossFn | None, int], Iterable[Reading]]"


def _amplification(model: nn.Module, batch: Any, loss_fn: "LossFn | None", seed: int) -> "Iterable[Reading]":
    from gradlens.probes.amplification import amplification
    from gradlens.probes.calls import stacked

    return [amplification(model, batch, moved=stacked(model), seed=seed)]


def _concentration(model: nn.Module, batch: Any, loss_fn: "LossFn | None", seed: int) -> "Iterable[Reading]":
    from gradlens.probes.concentration import concentration

    return concentration(model, batch, seed=seed)


def _sharpness(model: nn.Module, batch: Any, loss_fn: "LossFn | None", seed: int) -> "Iterable[Reading]":
    from gradlens.probes.loss import Loss
    from gradlens.probes.sharpness import sharpness

    return [sharpness(Loss(model, batch, loss_fn, seed=seed))]


#: Name to what is read of (model, batch, loss_fn, seed).
PROBES: Mapping[str, _Probe] = {
    "amplification": _amplification,
    "concentration": _concentration,
    "sharpness": _sharpness,
}


def probed(
    names: Sequence[str], model: nn.Module, batch: Any, loss_fn: "LossFn | None", seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table ``probes``, without their step, that the named probes give."""
    for name in names:
        for reading in PROBES[name](model, batch, loss_fn, seed):
            yield reading.row()
