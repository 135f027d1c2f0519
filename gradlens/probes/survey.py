"""Everything the probes read of a model at one point, and the answer for its learning rate."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from gradlens.errors import GradlensError, ModelError
from gradlens.probes import PROBES
from gradlens.probes.answer import Answer, answer, check_planned
from gradlens.probes.critical_step import critical_step
from gradlens.probes.learning_rate import batch_list
from gradlens.probes.optimizers import OptimizerKind, Plan
from gradlens.probes.reading import Reading


@dataclass(kw_only=True)
class Survey:
    """What the probes read.

    Attributes:
        readings: in the order in which they were made.
        answer: to which learning rate, and whether to warm up; None where it could not be given.
        not_read: name of what failed to the sentence that says why.
    """

    readings: list[Reading] = field(default_factory=list)
    answer: Answer | None = None
    not_read: dict[str, str] = field(default_factory=dict)


def survey(
    model: nn.Module,
    batches: Any,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    *,
    optimizer: OptimizerKind = "adam",
    lr: float | None = None,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Answer for the learning rate, and read the critical step and every probe of ``PROBES`` on the first batch.

    A probe that fails takes nothing from the others.

    Args:
        model: never changed; copies of it are trained.
        batches: as in ``learning_rate_limit``.
        loss_fn: (output, batch) to a scalar; without it see ``gradlens.outputs.loss_of``.
        optimizer: ``"adam"``, ``"sgd"`` or ``"momentum"``.
        lr: the learning rate that is planned.
        seed: of dropout, of noise, and of the vectors that iterations start from.
        on_progress: called with (probes done, probes) before each.

    Raises:
        UnknownNameError: there is no such optimizer.
        GradlensError: ``lr`` is not positive, or there is no batch.
    """
    Plan(kind=optimizer)
    check_planned(lr)
    several = batch_list(batches)
    found = Survey()

    def answered() -> list[Reading]:
        keep = found.readings.append
        found.answer = answer(model, several, loss_fn, optimizer=optimizer, lr=lr, seed=seed, on_reading=keep)
        return []  # they were kept as they came: those before an error count too

    def read(name: str) -> list[Reading]:
        return list(PROBES[name](model, several[0], loss_fn, seed))

    probes: dict[str, Callable[[], list[Reading]]] = {
        "learning rate": answered,
        "critical_step": lambda: [_critical(model, several[0], loss_fn, optimizer, seed)],
        **{name: partial(read, name) for name in PROBES},
    }
    for done, (name, probe) in enumerate(probes.items()):
        if on_progress is not None:
            on_progress(done, len(probes))
        try:
            found.readings += probe()
        except GradlensError as error:
            found.not_read[name] = str(error)
    return found


def _critical(
    model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor] | None, optimizer: OptimizerKind, seed: int
) -> Reading:
    """Measure in float64, or where the model cannot be run in it, as it is and with a note."""
    try:
        return critical_step(model, batch, loss_fn, optimizer=optimizer, seed=seed)
    except ModelError as error:
        reading = critical_step(model, batch, loss_fn, optimizer=optimizer, seed=seed, double=False)
        return replace(reading, notes=(*reading.notes, f"not in float64: {error}"))
