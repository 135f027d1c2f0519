"""One training under a lens, and all that a fault or a set-up may change in it."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gradlens
from tests.calibration.batches import Batch, Batches
from tests.calibration.blocks import Wrong
from tests.calibration.networks import Network, optimizer_of

#: What is recorded; attention besides, where it is at fault.
WATCH = ("norms", "blocks", "params", "updates")


@dataclass
class Run:
    """A training to be; changed before it begins.

    Attributes:
        network: what is trained.
        seed: of weights and data.
        steps: of the optimizer.
        wrong: in the architecture.
        build: makes the model.
        data: of a step; called with the number of the batch. Inputs that are a tuple are the model's arguments.
        loss: from output and target.
        optimizer: name in ``torch.optim``, with ``settings``.
        lr: the rate; ``rate`` is its factor at a step.
        on_model: called with the model when it is built.
        held: from the model to what the optimizer gets.
        each_step: called with model, optimizer and step before each step.
        micro: batches a step; their losses are divided by ``divisor``.
        zero: whether the gradients are zeroed.
        sign: of the loss that is minimized.
        clip: largest norm of the gradient.
        autocast: type of the activations.
        scaler: of the loss.
        initial: whether only the model at initialization is recorded.
        watch: what is recorded.
        now: the step that is running.
    """

    network: Network
    seed: int = 0
    steps: int = 160
    wrong: Wrong = field(default_factory=Wrong)
    build: Callable[[Wrong], nn.Module] = field(init=False)
    data: Batches = field(init=False)
    loss: Callable[..., Tensor] = field(init=False)
    optimizer: str = field(init=False)
    settings: dict[str, Any] = field(init=False)
    lr: float = field(init=False)
    rate: Callable[[int], float] = field(init=False)
    on_model: list[Callable[[Any], object]] = field(default_factory=list)
    held: Callable[[nn.Module], Any] = lambda model: list(model.parameters())
    each_step: list[Callable[[Any, torch.optim.Optimizer, int], object]] = field(default_factory=list)
    micro: int = 1
    divisor: float | None = None
    zero: bool = True
    watch: tuple[str, ...] = WATCH
    sign: Callable[[int], float] = lambda step: 1.0
    clip: float | None = None
    autocast: torch.dtype | None = None
    scaler: Any = None
    initial: bool = False
    now: int = 0

    def __post_init__(self) -> None:
        network = self.network
        self.build, self.data, self.loss = network.build, network.data(self.seed), network.loss
        self.optimizer, self.settings, self.lr = network.optimizer, dict(network.settings), network.lr
        self.rate = lambda step: min(1.0, (step + 1) / max(1, network.warm_up))

    def change_data(self, change: Callable[[Batch, int], Batch]) -> None:
        """Let batches pass through a function, which is also told the step."""
        before = self.data
        self.data = lambda index: change(before(index), self.now)

    def change_loss(self, change: Callable[..., Tensor]) -> None:
        """Put another loss, which gets the loss before, the output and the target."""
        before = self.loss
        self.loss = lambda output, target: change(before, output, target)


def train(run: Run, folder: Path) -> None:
    """Train and record; the folder is a run folder then."""
    torch.manual_seed(run.seed)
    model = run.build(run.wrong)
    for change in run.on_model:
        change(model)
    optimizer = optimizer_of(run.optimizer, run.held(model), run.lr, run.settings)
    base = [group["lr"] for group in optimizer.param_groups]
    with gradlens.attach(
        model, out=folder, optimizer=optimizer, scaler=run.scaler, watch=run.watch, label=run.network.name
    ) as lens:
        for step in range(run.steps):
            run.now = step
            for act in run.each_step:
                act(model, optimizer, step)
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * run.rate(step)
            loss = _pass(run, model, optimizer, step)
            _update(run, model, optimizer)
            lens.step(loss=loss)


def _pass(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
    """Run the batches of a step forward and backward; return their mean loss."""
    if run.zero:
        optimizer.zero_grad()
    total = torch.zeros(())
    for micro in range(run.micro):
        x, y = run.data(run.micro * step + micro)
        with torch.autocast("cpu", run.autocast) if run.autocast else contextlib.nullcontext():
            output = model(*x) if isinstance(x, tuple) else model(x)
        loss = run.loss(output, y)
        minimized = run.sign(step) * loss / (run.micro if run.divisor is None else run.divisor)
        (minimized if run.scaler is None else run.scaler.scale(minimized)).backward()
        total = total + loss.detach().float() / run.micro
    return total


def _update(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    if run.scaler is not None:
        run.scaler.unscale_(optimizer)
    if run.clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), run.clip)
    if run.scaler is None:
        optimizer.step()
    else:
        run.scaler.step(optimizer)
        run.scaler.update()
