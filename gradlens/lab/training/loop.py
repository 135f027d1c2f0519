"""The state of one training run and what one optimizer step does to it."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.batches import run_model, to_device
from gradlens.errors import ModelError
from gradlens.lab.tasks.task import Batch, Task
from gradlens.lab.training.config import TrainingConfig
from gradlens.lab.training.optimization import build_optimizer, learning_rate, set_learning_rate
from gradlens.lab.training.seeding import Seeds

#: A run has diverged when its loss is not finite, or was for this many steps in a row above this multiple of
#: what guessing uniformly loses: no model that still learns stays there, and some that blow up stay finite.
HIGH_STEPS, HIGH_LOSS = 20, 3.0


@dataclass
class Loop:
    """A run in progress: all that a checkpoint must hold is ``step``, ``high_losses``, and the two states.

    Attributes:
        model: on ``device``.
        task: gives batches and their loss.
        config: the settings.
        seeds: of the data order and of dropout.
        device: of the model.
        step: optimizer steps done.
        high_losses: steps in a row, up to the last one, whose loss was too high to be learning.
        diverged: whether the run has diverged.
    """

    model: nn.Module
    task: Task
    config: TrainingConfig
    seeds: Seeds
    device: torch.device
    step: int = 0
    high_losses: int = 0
    diverged: bool = False
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = build_optimizer(self.model, self.config)
        self.model.train()

    def advance(self) -> dict[str, float]:
        """Do one optimizer step.

        Returns:
            What the step gives to record: loss, lr, and where they are due the metrics on held-out data
            after the step.

        Raises:
            ModelError: the model cannot take the task's batch.
        """
        config = self.config
        lr = learning_rate(config, self.step)
        set_learning_rate(self.optimizer, lr)
        torch.manual_seed(self.seeds.dropout(self.step))
        self.optimizer.zero_grad()
        scalars = {"loss": self._backward(), "lr": lr}
        if config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        self.step += 1
        if self._due(config.evaluate_every, last=True):
            scalars |= self.task.evaluate(
                self.model,
                batches=config.evaluation_batches,
                batch_size=config.batch_size,
                length=config.length,
                device=self.device,
            )
        self._judge(scalars)
        return scalars

    @property
    def finished(self) -> bool:
        """Whether there is no further step to do."""
        return self.diverged or self.step >= self.config.steps

    @property
    def checkpoint_due(self) -> bool:
        """Whether the step just done is one to go on from after a kill."""
        return not self.finished and self._due(self.config.checkpoint_every)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds; no generator's state, since each step has its own seed."""
        return {
            "step": self.step,
            "high_losses": self.high_losses,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where a checkpoint was taken."""
        self.step, self.high_losses = state["step"], state["high_losses"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _backward(self) -> float:
        """Run all micro-batches forward and backward; return their mean loss."""
        count = self.config.accumulation
        total = torch.zeros((), device=self.device)
        for micro in range(count):
            batch = self.task.batch(
                self.step * count + micro,
                seed=self.seeds.data,
                batch_size=self.config.batch_size,
                length=self.config.length,
            )
            loss = self._loss(to_device(batch, self.device)) / count
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return float(total)

    def _loss(self, batch: Batch) -> Tensor:
        try:
            return self.task.loss(run_model(self.model, batch), batch)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise ModelError(
                f"The model must take the batches of the task {self.task.name!r}; "
                f"{type(self.model).__name__} failed on one ({type(error).__name__}: {error}). "
                f"Change the model, or the batch's size."
            ) from error

    def _due(self, every: int, *, last: bool = False) -> bool:
        return every > 0 and (self.step % every == 0 or (last and self.step == self.config.steps))

    def _judge(self, scalars: dict[str, float]) -> None:
        too_high = scalars["loss"] > HIGH_LOSS * self.task.uniform_loss
        self.high_losses = self.high_losses + 1 if too_high else 0
        finite = all(math.isfinite(scalars[name]) for name in ("loss", "valid_loss") if name in scalars)
        self.diverged = not finite or self.high_losses >= HIGH_STEPS
