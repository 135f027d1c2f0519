"""A callback for Lightning: ``Trainer(callbacks=[GradlensCallback(out="runs/a")])``."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradlens.integrations.session import Watching

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError:  # the same under its other name
        from pytorch_lightning import Callback


class GradlensCallback(Watching, Callback):
    """Records a training of Lightning's, and puts the verdict into its log at the end.

    A step is one of the optimizer's, as ``trainer.global_step`` counts them; with several optimizers, which Lightning
    has step by hand, one is a batch in which any of them stepped. Loss is the mean over the micro-batches of a step:
    what ``training_step`` returned, by itself or under "loss". Sanity check and validation are not recorded. A training
    that goes on from a checkpoint is numbered on.

    Arguments and errors are those of ``Watching``.
    """

    _losses: list[Tensor]
    #: Steps that were closed, and ``trainer.global_step`` then.
    _steps: int | None = None
    _seen = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: how many steps there were."""
        return {} if self._steps is None else {"steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        self._steps = state_dict.get("steps")

    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Attach: the model is wrapped, the checkpoint is loaded, and the sanity check is over."""
        optimizers, self._seen = trainer.optimizers, trainer.global_step
        if len(optimizers) < 2 or self._steps is None or not self._seen:
            # Without a callback's state in the checkpoint, all optimizers are taken to have stepped equally often.
            self._steps = self._seen // max(len(optimizers), 1)
        self._losses = []
        self._begin(
            trainer.strategy.model or pl_module,
            self._steps,
            logging.getLogger(type(trainer).__module__.partition(".trainer")[0]).info,
            trainer.is_global_zero,
            optimizer=optimizers[0] if len(optimizers) == 1 else None,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
        )

    def on_train_batch_end(
        self, trainer: "Trainer", pl_module: "LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Close the step, if an optimizer stepped."""
        if self._session is None:
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            # It comes divided by the number of micro-batches.
            self._losses.append(loss.detach() * trainer.accumulate_grad_batches)
        if trainer.global_step == self._seen:
            return
        optimizers, losses, self._losses = trainer.optimizers, self._losses, []
        self._steps = trainer.global_step if len(optimizers) == 1 else (self._steps or 0) + 1
        self._seen = trainer.global_step
        lr = None if len(optimizers) == 1 else optimizers[0].param_groups[0]["lr"]
        self._session.step(loss=torch.stack(losses).mean() if losses else None, lr=lr)

    def on_train_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Detach, and say the verdict."""
        self._end("complete")

    def on_exception(self, trainer: "Trainer", pl_module: "LightningModule", exception: BaseException) -> None:
        """Detach from a training that was interrupted."""
        self._end("interrupted")
