"""What `make bench` measures beside the lens: other tools on the same steps, each recording as much as it can.

Each is made of a model, its optimizer and a folder, and hears of every step. One that is not installed is left out;
`make peers` installs those that are on PyPI in an environment of their own, and `make bench` runs in that where it is
there. tensor-tracker is not on PyPI: https://github.com/graphcore-research/pytorch-tensor-tracker, with pip's git+.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.recognition import recognise


class Peer:
    """Another tool at work: told of each step where it would be in a training loop."""

    def before_optimizer(self, loss: Tensor) -> None:
        """Hear that the backward pass is over."""

    def step(self, loss: float) -> None:
        """Hear that the step is over."""

    def close(self) -> None:
        """Let go of the model."""


class NaiveHook(Peer):
    """Two numbers of each norm's gradients as one writes it in five minutes; kept on the device until the step ends."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._kept: list[Tensor] = []
        self.rows: list[list[float]] = []
        self._handles = [
            module.register_full_backward_hook(self._hook)
            for module in model.modules()
            if (taken := recognise(module)) is not None and taken.kind is not None
        ]

    def _hook(self, module: nn.Module, grad_input: Any, grad_output: Any) -> None:
        self._kept += [grad.norm() for grad in (*grad_input[:1], *grad_output[:1]) if grad is not None]

    def step(self, loss: float) -> None:
        if self._kept:
            self.rows.append(torch.stack(self._kept).tolist())
        self._kept = []

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


class ParameterNorms(Peer):
    """The norm of each parameter's gradient and of the parameter, as trainers log them."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.rows: list[list[float]] = []

    def before_optimizer(self, loss: Tensor) -> None:
        grads = [p.grad for p in self._parameters if p.grad is not None]
        norms = [*torch._foreach_norm(grads), *torch._foreach_norm([p.detach() for p in self._parameters])]
        self.rows.append(torch.stack(norms).tolist())


class TrainScope(Peer):
    """trainscope with activations, histograms and parameters of every step, in its own order of calls."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        import trainscope

        config = trainscope.TrainScopeConfig(
            run_dir=str(folder), activation_metrics_every_n_steps=1, histogram_every_n_steps=1
        )
        self._scope = trainscope.TrainScope(model, optimizer, config).attach()

    def before_optimizer(self, loss: Tensor) -> None:
        self._scope.step(loss.item())

    def close(self) -> None:
        self._scope.detach()


class WandbWatch(Peer):
    """wandb.watch: histograms of all gradients and parameters in every step, offline."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(mode="offline", dir=folder, project="bench")
        self._run.watch(model, log="all", log_freq=1)

    def step(self, loss: float) -> None:
        self._run.log({"loss": loss})

    def close(self) -> None:
        self._run.unwatch()
        self._run.finish()


class TensorTracker(Peer):
    """tensor-tracker with the standard deviation of every module's output and its gradient."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        import tensor_tracker

        self._tracker = tensor_tracker.track(model, stash_value=lambda value: value.std())

    def step(self, loss: float) -> None:
        self._tracker.to_frame(lambda value: value.item())
        self._tracker.clear()

    def close(self) -> None:
        self._tracker.unregister()


class DebugUnderflowOverflow(Peer):
    """Hugging Face's: smallest and largest entry of every module's input, output and parameters."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        from transformers.debug_utils import DebugUnderflowOverflow

        self._debug = DebugUnderflowOverflow(model)


#: Name to what makes it.
PEERS: dict[str, Callable[[nn.Module, torch.optim.Optimizer, Path], Peer]] = {
    "naive hook": NaiveHook,
    "parameter norms": ParameterNorms,
    "trainscope": TrainScope,
    "wandb.watch": WandbWatch,
    "tensor-tracker": TensorTracker,
    "DebugUnderflowOverflow": DebugUnderflowOverflow,
}


def installed() -> list[str]:
    """Return the names of those that can be imported."""
    modules = {"trainscope": "trainscope", "wandb.watch": "wandb", "tensor-tracker": "tensor_tracker",
               "DebugUnderflowOverflow": "transformers.debug_utils"}  # fmt: skip
    found = []
    for name in PEERS:
        with contextlib.suppress(ImportError):
            if name in modules:
                __import__(modules[name])
            found.append(name)
    return found
