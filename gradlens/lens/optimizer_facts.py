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
        facts: dict[str, Any] = {"lr": _plain(group.get("initial_lr", group["lr"]))}
        facts |= {name: _plain(group[name]) for name in _KEPT if group.get(name) is not None}
        if at:
            facts["names"] = [names[id(parameter)] for parameter in group["params"] if id(parameter) in names]
        groups[str(at)] = facts
    return {"class": type(optimizer).__name__, "groups": groups}


def _plain(value: Any) -> Any:
    """Return numbers that JSON can hold."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, bool) else float(value)
