"""What an optimizer is set to, as a manifest keeps it."""

from typing import Any

import torch
from torch import nn

#: Settings that say what a step makes of a gradient.
_KEPT = ("weight_decay", "momentum", "dampening", "nesterov", "betas", "decoupled_weight_decay")


def optimizer_facts(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's class and its groups' settings, with the names of their parameters from the second on.

    Args:
        model: names the parameters.
        optimizer: over them; the rate is the one that a schedule multiplies, where it has one.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {}
    for at, group in enumerate(optimizer.param_groups):
        facts: dict[str, Any] = {"lr": group.get("initial_lr", group.get("lr"))}
        facts |= {name: group.get(name) for name in _KEPT}
        groups[str(at)] = facts = {name: plain for name, value in facts.items() if (plain := _plain(value)) is not None}
        if at:
            facts["names"] = [names[id(parameter)] for parameter in group["params"] if id(parameter) in names]
    return {"class": type(optimizer).__name__, "groups": groups}


def _plain(value: Any) -> bool | float | list[float] | None:
    """Return what JSON can hold of a setting; None of what is no number and no few of them."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list | tuple):
        numbers = [_plain(one) for one in value]
        return [float(one) for one in numbers if isinstance(one, float)] if len(numbers) < 8 else None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
