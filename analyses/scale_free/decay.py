"""How a run's optimizer makes steps, and decays, of each parameter."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradlens.recording import Recording
from gradlens.theory.kosson2024 import Steps, adamw, sgd


@dataclass(frozen=True)
class Setting:
    """What is known of a group of parameters.

    Attributes:
        optimizer: the class' name.
        decay: λ.
        factor: the group's rate over that of the first group, which is recorded.
        steps: how gradients become steps; None where no equilibrium is known.
    """

    optimizer: str
    decay: float
    factor: float
    steps: Steps | None


def setting_of(run: Recording) -> Mapping[str, Setting]:
    """Return the setting of each parameter that has one of its own, and under the empty name that of all others.

    Empty where the optimizer is not known.
    """
    known, training = run.meta.get("optimizer"), run.meta.get("training") or {}
    if not known and "weight_decay" in training:
        # What the laboratory trains with says it by itself.
        names = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
        known = {"class": names.get(str(training.get("optimizer")), ""), "groups": {"0": {"lr": 1.0, **training}}}
    if not known:
        return {}
    found: dict[str, Setting] = {}
    first = float(known["groups"].get("0", {}).get("lr", 0.0))
    for group in known["groups"].values():
        factor = float(group.get("lr", first)) / first if first > 0 else 1.0
        setting = Setting(known["class"], float(group.get("weight_decay") or 0), factor, _steps(known["class"], group))
        found |= dict.fromkeys(group.get("names", [""]), setting)
    return found


def _steps(optimizer: str, group: Mapping[str, Any]) -> Steps | None:
    if optimizer == "SGD":
        momentum, dampening = (float(group.get(name) or 0) for name in ("momentum", "dampening"))
        return sgd(momentum, dampening, bool(group.get("nesterov")))
    # In torch AdamW is an Adam whose decay is apart.
    apart = optimizer == "AdamW" or (optimizer == "Adam" and group.get("decoupled_weight_decay"))
    return adamw(group.get("betas") or (0.9, 0.999)) if apart else None
