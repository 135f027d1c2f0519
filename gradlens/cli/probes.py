"""``gradlens inspect --probes``: what the probes read of a model at initialization, and its learning rate."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gradlens.cli import terminal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradlens.probes.answer import Answer
    from gradlens.probes.optimizers import OptimizerKind
    from gradlens.probes.reading import Reading
    from gradlens.training.subject import Subject

#: Steps of the progress bar after those of the answer: sharpness, amplification, the blocks.
_OTHERS = 3


class Probing:
    """Reads the model of the first seed with every probe; ``at_init`` calls it with each.

    Args:
        subject: gives further batches.
        seed: the first.
        optimizer: the one that is planned.
        lr: the learning rate that is planned, if any.
        on_progress: called with (done, total).

    Attributes:
        readings: of all probes, in the order of the table.
        answer: to which learning rate, and whether to warm up.
    """

    def __init__(
        self,
        subject: "Subject",
        seed: int,
        optimizer: "OptimizerKind",
        lr: float | None,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._subject, self._seed, self._optimizer, self._lr = subject, seed, optimizer, lr
        self._on_progress = on_progress
        self.readings: list[Reading] = []
        self.answer: Answer | None = None

    def __call__(
        self, model: "nn.Module", batch: Any, loss_fn: "Callable[[Any, Any], Tensor] | None", seed: int
    ) -> Iterator[dict[str, Any]]:
        """Return the rows of the table ``probes``: of the first seed, none of the others."""
        if seed != self._seed:
            return iter(())
        from gradlens.lens.sites import blocks
        from gradlens.probes.amplification import amplification
        from gradlens.probes.answer import answer
        from gradlens.probes.block_jacobian import block_jacobian
        from gradlens.probes.concentration import concentration
        from gradlens.probes.loss import Loss
        from gradlens.probes.sharpness import sharpness

        batches = self._batches(batch)
        total = 4 + _OTHERS
        self.answer = answer(
            model,
            batches,
            loss_fn,
            optimizer=self._optimizer,
            lr=self._lr,
            seed=seed,
            on_reading=lambda done, _: self._on_progress(done, total),
        )
        self._on_progress(4, total)
        others = [sharpness(Loss(model, batch, loss_fn, seed=seed), seed=seed)]
        self._on_progress(5, total)
        others.append(amplification(model, batch, seed=seed))
        self._on_progress(6, total)
        sites = list(blocks(model))
        others += [block_jacobian(model, batch, site, seed=seed) for site in dict.fromkeys(sites[:1] + sites[-1:])]
        others += concentration(model, batch, sites, seed=seed) if sites else []
        self.readings = [*self.answer.readings, *others]
        return (reading.row() for reading in self.readings)

    def _batches(self, first: Any) -> list[Any]:
        """Return the model's batch and further ones; those that repeat one are left out."""
        import torch

        from gradlens.batches import to_device
        from gradlens.probes.learning_rate import BATCHES

        device = next((leaf.device for leaf in _leaves(first)), torch.device("cpu"))
        batches = [first]
        for index in range(1, BATCHES):
            other = to_device(self._subject.measured.batches(self._seed + index), device)
            if not any(_same(other, batch) for batch in batches):
                batches.append(other)
        return batches


def document(probing: Probing) -> dict[str, Any]:
    """Return readings and answer as plain values."""
    assert probing.answer is not None
    said = {"learning_rate": probing.answer.lr, "warmup": probing.answer.warmup, "text": probing.answer.text}
    return {"answer": said, "readings": [asdict(reading) for reading in probing.readings]}


def text(probing: Probing) -> str:
    """Return a table of the readings, when they mislead, what was done to the model, and the answer."""
    from gradlens.report.numbers import interval, number

    assert probing.answer is not None
    heads = ["probe", "site", "reading", "value", "interval", "unit", "forward", "backward"]
    rows = [
        [r.probe, r.site, r.name, number(r.value), interval(r.low, r.high), r.unit, str(r.forward), str(r.backward)]
        for r in probing.readings
    ]
    misleads = dict.fromkeys((r.probe, r.misleads) for r in probing.readings if r.misleads)
    notes = dict.fromkeys((r.probe, note) for r in probing.readings for note in r.notes)
    return "\n".join(
        [
            "Probes, of the first seed; cost in forward and backward passes",
            terminal.columns([heads, *rows], right=(3, 6, 7)),
            "",
            "When they mislead",
            *(f"- {probe}: {sentence}" for probe, sentence in misleads),
            *(["", "What was done"] if notes else []),
            *(f"- {probe}: {note}" for probe, note in notes),
            "",
            "Learning rate",
            probing.answer.text,
        ]
    )


def _leaves(batch: Any) -> "list[Tensor]":
    from torch import Tensor
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]


def _same(one: Any, other: Any) -> bool:
    import torch

    pairs = list(zip(_leaves(one), _leaves(other), strict=False))
    return len(_leaves(one)) == len(_leaves(other)) and all(torch.equal(a, b) for a, b in pairs)
