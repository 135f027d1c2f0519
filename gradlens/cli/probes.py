"""``gradlens inspect --probes``: what the probes read of a model at initialization, and its learning rate."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gradlens.text import columns

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradlens.lab.operands.subject import Subject
    from gradlens.probes.optimizers import OptimizerKind
    from gradlens.probes.survey import Survey


class Probing:
    """Surveys the model of the first seed; ``at_init`` calls it with each.

    Args:
        subject: gives further batches.
        seed: the first.
        optimizer: the one that is planned.
        lr: the learning rate that is planned, if any.
        on_progress: called with (done, total).

    Attributes:
        found: what the probes read, once it was called.
    """

    found: "Survey"

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

    def __call__(
        self, model: "nn.Module", batch: Any, loss_fn: "Callable[[Any, Any], Tensor] | None", seed: int
    ) -> Iterator[dict[str, Any]]:
        """Return the rows of the table ``probes``: of the first seed, none of the others."""
        if seed != self._seed:
            return iter(())
        from gradlens.probes.survey import survey

        self.found = survey(
            model,
            self._batches(batch),
            loss_fn,
            optimizer=self._optimizer,
            lr=self._lr,
            seed=seed,
            on_progress=self._on_progress,
        )
        return (reading.row() for reading in self.found.readings)

    def _batches(self, first: Any) -> list[Any]:
        """Return the model's batch and further ones; those that repeat one are left out."""
        import torch

        from gradlens.batches import to_device
        from gradlens.probes.learning_rate import BATCHES

        device = next((leaf.device for leaf in _leaves(first)), torch.device("cpu"))
        batches = [first]
        for index in range(1, BATCHES):
            other = to_device(self._subject.at_init.batches(self._seed + index), device)
            if not any(_same(other, batch) for batch in batches):
                batches.append(other)
        return batches


def document(found: "Survey") -> dict[str, Any]:
    """Return readings, answer, and what was not read, as plain values."""
    answer = found.answer
    said = answer and {"learning_rate": answer.lr, "warmup": answer.warmup, "text": answer.text}
    return {"answer": said, "readings": [asdict(reading) for reading in found.readings], "not_read": found.not_read}


def text(found: "Survey", training: str = "") -> str:
    """Return the readings, which are in doubt, when they mislead, what was done to the model, what failed, the answer.

    Args:
        found: what the probes read.
        training: the command that shows what they cannot; empty where there is none.
    """
    from gradlens.reporting.numbers import interval, number

    heads = ["probe", "site", "reading", "value", "interval", "unit", "forward", "backward"]
    ranges = ["in doubt" if r.doubt else interval(r.low, r.high) for r in found.readings]
    rows = [
        [r.probe, r.site, r.name, number(r.value), between, r.unit, str(r.forward), str(r.backward)]
        for r, between in zip(found.readings, ranges, strict=True)
    ]
    misleads = dict.fromkeys(f"{r.probe}: {r.misleads}" for r in found.readings if r.misleads)
    notes = dict.fromkeys(f"{r.probe}: {note}" for r in found.readings for note in r.notes)
    failed: dict[str, list[str]] = {}
    for name, sentence in found.not_read.items():  # one loss that is not finite fails several of them
        failed.setdefault(sentence, []).append(name)
    parts = {
        "In doubt, not to be relied on": [f"{r.probe}, {r.name}: {r.doubt}" for r in found.readings if r.doubt],
        "When they mislead": list(misleads),
        "What was done": list(notes),
        "Not read:": [f"{', '.join(names)}: {sentence}" for sentence, names in failed.items()],
    }
    lines = ["Probes, of the first seed; cost in forward and backward passes"]
    lines += [columns([heads, *rows], right=(3, 6, 7))] if rows else []
    for title, sentences in parts.items():
        lines += ["", title, *(f"- {sentence}" for sentence in sentences)] if sentences else []
    lines += ["", "Learning rate", found.answer.text] if found.answer else []
    return "\n".join([*lines, *([f"With a warm-up and without: {training}"] if training else [])])


def _leaves(batch: Any) -> "list[Tensor]":
    from torch import Tensor
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]


def _same(one: Any, other: Any) -> bool:
    import torch

    pairs = list(zip(_leaves(one), _leaves(other), strict=False))
    return len(_leaves(one)) == len(_leaves(other)) and all(torch.equal(a, b) for a, b in pairs)
