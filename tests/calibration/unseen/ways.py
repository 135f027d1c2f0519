"""Words to plant faults with; each changes a run from the planted step on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.calibration.faults import KINDS, Planted
from tests.calibration.run import Run

Plant = Callable[[Planted], None]


def built(**options: Any) -> Callable[[Run], None]:
    """Make the model with options."""

    def change(run: Run) -> None:
        run.build = lambda wrong: run.network.build(wrong, **options)

    return change


def model(**options: Any) -> Plant:
    return lambda planted: built(**options)(planted.run)


def kind(name: str) -> Plant:
    """Plant as the calibration does."""
    return KINDS[name].plant


def inputs(change: Callable[[Tensor], Tensor], which: int = 0, once: bool = False) -> Plant:
    """Change one of the tensors that the model is given; of one batch only, at the planted step or the fifth."""

    def plant(planted: Planted) -> None:
        def changed(batch: Any, step: int) -> Any:
            x, y = batch
            start = max(planted.step, 5) if once else planted.step
            if step < start or (once and step > start):
                return batch
            if isinstance(x, tuple):
                return tuple(change(part) if i == which else part for i, part in enumerate(x)), y
            return change(x), y

        planted.run.change_data(changed)

    return plant


def labels(change: Callable[[Any], Any]) -> Plant:
    def plant(planted: Planted) -> None:
        planted.run.change_data(lambda batch, step: (batch[0], change(batch[1]) if step >= planted.step else batch[1]))

    return plant


def loss(change: Callable[[Callable[..., Tensor], Any, Any], Tensor]) -> Plant:
    """Put another loss, from that before, output and target."""

    def plant(planted: Planted) -> None:
        run = planted.run
        run.change_loss(
            lambda before, output, target: (
                change(before, output, target) if run.now >= planted.step else before(output, target)
            )
        )

    return plant


def rate(factor: Callable[[int], float]) -> Plant:
    """Multiply the rate by a function of the steps since."""

    def plant(planted: Planted) -> None:
        before = planted.run.rate
        planted.run.rate = lambda step: before(step) * (factor(step - planted.step) if step >= planted.step else 1.0)

    return plant


def each(act: Callable[[Any], object]) -> Plant:
    """Do something to the model before each step."""

    def plant(planted: Planted) -> None:
        def acts(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
            if step >= planted.step:
                with torch.no_grad():
                    act(model)

        planted.run.each_step.append(acts)

    return plant


def once(act: Callable[[Any], object]) -> Plant:
    """Do something to the model, once."""

    def plant(planted: Planted) -> None:
        def acts(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
            if step == planted.step:
                with torch.no_grad():
                    act(model)

        planted.run.each_step.append(acts)

    return plant


def output(path: str, change: Callable[[Any], Any]) -> Plant:
    """Change what a module returns."""

    def plant(planted: Planted) -> None:
        run = planted.run
        run.on_model.append(
            lambda model: model.get_submodule(path).register_forward_hook(
                lambda module, args, out: change(out) if run.now >= planted.step else out
            )
        )

    return plant


def held(keep: Callable[[str], bool]) -> Plant:
    """Let the optimizer hold the parameters of some names only."""

    def plant(planted: Planted) -> None:
        planted.run.held = lambda model: [p for name, p in model.named_parameters() if keep(name)]

    return plant


def scaled(*paths: str, by: float) -> Callable[[Any], None]:
    """Return what multiplies parameters, or all matrices below a module."""

    def act(model: Any) -> None:
        for name, parameter in model.named_parameters():
            if name in paths or (
                parameter.dim() > 1 and any(name.startswith(f"{path}.") or not path for path in paths)
            ):
                parameter.mul_(by)

    return act


def filled(path: str, value: float, share: float = 1.0) -> Callable[[Any], None]:
    """Return what sets entries of a parameter."""

    def act(model: Any) -> None:
        parameter = model.get_parameter(path)
        parameter[: int(share * len(parameter))] = value

    return act


def bfloat16(planted: Planted) -> None:
    """Hold the weights, and inputs that are numbers, in bfloat16."""
    planted.run.on_model.append(lambda model: model.bfloat16())
    if isinstance(planted.run.data(0)[0], Tensor) and planted.run.data(0)[0].is_floating_point():
        inputs(lambda x: x.bfloat16())(planted)
