"""A callback for Hugging Face's Trainer, and trl's: ``Trainer(..., callbacks=[GradlensCallback(out="runs/a")])``."""

import gc
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from gradlens.integrations.session import Watching


class GradlensCallback(Watching, TrainerCallback):
    """Records a training of the Trainer's, and puts the verdict into its log at the end.

    A step is one of the optimizer's, as ``state.global_step`` counts them. Its loss is what the model returned with
    labels: the sum over micro-batches where the Trainer divides by the number of tokens in all of them, else their
    mean. The Trainer itself passes no loss to callbacks but the mean over ``logging_steps``, in which a NaN is no NaN;
    where the model returns none (``compute_loss_func``, label smoothing, torch.compile) that is taken, when it comes.
    Evaluation is not recorded. With ``resume_from_checkpoint`` steps are numbered on.

    Arguments and errors are those of ``Watching``.
    """

    _losses: "_Losses"
    #: Whether a step is over that was not closed.
    _open = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach: the optimizer is wrapped, and the checkpoint is loaded."""
        self._end("interrupted")  # an earlier call of train, which raised
        self._open = False
        model, main = kwargs["model"], state.is_world_process_zero
        # Its level is "warning" unless somebody sets it: the verdict would not be seen.
        say = logging.get_logger("transformers.trainer").warning
        trained = around(model) if args.world_size > 1 else model
        self._begin(trained, state.global_step, say, main, optimizer=kwargs.get("optimizer"))
        self._losses = _Losses(model, args.world_size if args.average_tokens_across_devices else 1)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close a step whose loss nobody said."""
        self._close()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Close the step, if the model said its loss."""
        self._open = True
        if self._losses.there:
            self._close(self._losses.take())

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Close the step with the loss that is logged, if the model said none."""
        if logs and "loss" in logs:
            self._close(float(logs["loss"]))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Detach, and say the verdict."""
        self._close()
        self._end("complete")

    def _close(self, loss: Tensor | float | None = None) -> None:
        if self._session is not None and self._open:
            self._open = False
            self._session.step(loss=loss)

    def _end(self, status: str) -> None:
        if self._session is not None:
            self._losses.forget()
        super()._end(status)


def around(model: nn.Module) -> nn.Module:
    """Return the DistributedDataParallel that a model is in, or the model itself.

    It says which processes share the data. The Trainer does not show it to callbacks, and a model does not know what
    holds it.
    """
    for holder in gc.get_objects():
        # Of the type, for to ask some objects for their class has them imported.
        if issubclass(type(holder), nn.parallel.DistributedDataParallel) and holder.module is model:
            return holder  # type: ignore[no-any-return]
    return model


class _Losses:
    """The losses that a model returns in training, of the micro-batches of one step.

    Args:
        model: that is listened to.
        processes: over which tokens are counted.
    """

    def __init__(self, model: nn.Module, processes: int) -> None:
        self._processes = processes
        self._losses: list[Tensor] = []
        #: Whether they are divided by the number of tokens in all micro-batches, of so many processes.
        self._shares = False
        self._handle = model.register_forward_hook(self._after, with_kwargs=True)

    def _after(self, model: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        loss = output.get("loss") if isinstance(output, Mapping) else None
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self._losses.append(loss.detach())
            self._shares = kwargs.get("num_items_in_batch") is not None

    @property
    def there(self) -> bool:
        """Whether there are any."""
        return bool(self._losses)

    def take(self) -> Tensor:
        """Return the step's loss, and begin the next."""
        losses, self._losses = torch.stack([loss.reshape(()) for loss in self._losses]), []
        # The mean over processes of what each has is the loss.
        return losses.sum() * self._processes if self._shares else losses.mean()

    def forget(self) -> None:
        """Listen no more."""
        self._handle.remove()
        self._losses = []
