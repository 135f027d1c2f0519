"""``gradlens compare A B --same-weights``: two implementations of one model, on the same weights and the same batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradlens.batches import to_device
from gradlens.errors import GradlensError
from gradlens.lab.operands import Operand, RunFolder
from gradlens.lab.operands.subject import AtInit, Subject
from gradlens.lab.runs import comparison
from gradlens.lab.runs.comparison import MeasuredOperand, Plan
from gradlens.lab.runs.jobs import OnProgress, load_task
from gradlens.lab.runs.measurement import measure
from gradlens.lab.training.earlier import is_finished
from gradlens.lab.training.settings import Settings
from gradlens.probes.side_by_side import differences, share_weights
from gradlens.recording import Recording, load


@dataclass(frozen=True, kw_only=True)
class Implementation(MeasuredOperand):
    """One of two implementations, measured at initialization on the first's batch.

    Attributes:
        first: the other operand where this is the second, which takes its weights and is held against it; else None.
    """

    first: "Operand | None"

    def record(self, folder: Path, on_progress: OnProgress) -> Recording:
        """Measure, or read what is finished."""
        if is_finished(folder):
            return load(folder)
        own, seed = self.subject, self.settings.seed
        with torch.random.fork_rng():
            if self.first is None:
                model, batch, loss_fn = _made(own, seed)
                told: dict[str, Any] = {}
                return self._measured(own, folder, AtInit(lambda: model, lambda _: batch, loss_fn), told)
            assert not isinstance(self.first, RunFolder)
            other = self.first.subject(load_task(self.task), self.settings)
            theirs, batch, loss_fn = _made(other, seed)
            torch.manual_seed(seed)
            model = own.at_init.build()
        names = share_weights(theirs, model)
        told = {
            "first": other.label, "weights": len(theirs.state_dict()), "mapped": len(names.pairs),
            "renamed": dict(names.renamed), "removed": list(names.removed), "added": list(names.added),
        }  # fmt: skip

        def probe(mine: nn.Module, placed: Any, loss: Any, seed: int) -> Iterator[Mapping[str, Any]]:
            device = next(mine.parameters()).device
            yield from differences(theirs.to(device), mine, names, to_device(placed, device), loss, seed)

        return self._measured(own, folder, AtInit(lambda: model, lambda _: batch, loss_fn), told, probe)

    def _measured(
        self, subject: Subject, folder: Path, at_init: AtInit, told: dict[str, Any], probe: Any = None
    ) -> Recording:
        return measure(
            replace(subject, at_init=at_init),
            self.settings,
            folder,
            without_norms=True,  # what is looked at is every module
            probe=probe,
            meta={"same_weights": told},
        )


def _made(subject: Subject, seed: int) -> tuple[nn.Module, Any, Any]:
    """Return a model, its batch and its loss, as ``at_init`` makes them for a seed."""
    torch.manual_seed(seed)
    batch = subject.at_init.batches(seed)
    return subject.at_init.build(), batch, subject.at_init.loss_fn


def plan(operands: Sequence[Operand], settings: Settings, out: Path) -> Plan:
    """List the two recordings.

    Args:
        operands: two models.
        settings: of the comparison; one seed, and no training.
        out: its folder.

    Raises:
        GradlensError: there are not two models, one cannot be built, or the task or device does not exist.
    """
    if len(operands) != 2 or any(isinstance(operand, RunFolder) for operand in operands):
        raise GradlensError(
            "--same-weights takes two models, which it builds; got "
            f"{', '.join(operand.label for operand in operands)}. Name two, such as mod:build_a mod:build_b."
        )
    whole = comparison.plan(operands, replace(settings, seeds=1, init_only=True), out)
    jobs = tuple(
        Implementation(
            key=job.key, label=job.label, task=job.task, seconds=job.seconds, operand=job.operand,
            settings=job.settings, first=first,
        )
        for job, first in zip(whole.jobs, (None, operands[0]), strict=True)
        if isinstance(job, MeasuredOperand)
    )  # fmt: skip
    manifest = {**whole.manifest, "settings": {**whole.manifest["settings"], "same_weights": True}}
    return Plan(jobs=jobs, notes=(), manifest=manifest)
