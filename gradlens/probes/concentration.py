"""Concentration of a stream's energy over tokens (Xiong et al. 2020, 2002.04745, Definition 1)."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from gradlens.errors import GradlensError
from gradlens.probes.calls import first_calls, stacked
from gradlens.probes.reading import Reading

#: ε of the definition; the paper finds streams (0.1, 0.125)-bounded.
EPSILONS = (0.1, 0.25, 0.5)


def concentration(
    model: nn.Module,
    batch: Any,
    sites: Iterable[str] | None = None,
    *,
    epsilons: Sequence[float] = EPSILONS,
    seed: int = 0,
) -> list[Reading]:
    """Measure the share δ of tokens whose ‖x‖² is further than ε·mean from the mean over tokens.

    Theorem 1 of the paper needs the last stream to be (ε, δ)-bounded with small ε and δ.

    Args:
        model: never changed.
        batch: what its forward takes, of at least two tokens.
        sites: paths of modules, by default the blocks (``stacked``); the output [..., D] of each is a stream or, where
            the module ends with a norm, behind which all tokens are alike, that norm's input.
        epsilons: ε.
        seed: of dropout.

    Returns:
        One share a site and ε, without a unit.

    Raises:
        GradlensError: there is a single token.
        ModelError: see ``first_calls`` and ``stacked``.
    """
    readings: list[Reading] = []
    sites = stacked(model) if sites is None else list(sites)
    norms = [path for path, module in model.named_modules() if path not in sites and _is_norm(module)]
    calls = first_calls(model, batch, sites, optional=norms, seed=seed)
    inputs = {id(call.output): call.arguments[0] for call in calls[len(sites) :] if call.arguments}
    for call in calls[: len(sites)]:
        energies = inputs.get(id(call.output), call.output).double().square().sum(-1).reshape(-1)
        if energies.numel() < 2:
            raise GradlensError(
                "Concentration compares tokens, so a batch must hold at least two; got one. Pass a larger batch."
            )
        apart = (energies / energies.mean() - 1).abs()
        for epsilon in epsilons:
            readings.append(
                Reading(
                    probe="concentration",
                    name=f"share beyond {epsilon:g}",
                    value=float((apart > epsilon).double().mean()),
                    site=call.site,
                    forward=0 if readings else 1,  # one pass gives them all
                    misleads="It is a share of this batch's tokens, which are not independent of each other.",
                )
            )
    return readings


def readings(model: nn.Module, batch: Any, loss_fn: Any, seed: int) -> list[Reading]:
    """Return the shares after every block; the probe of ``PROBES``."""
    return concentration(model, batch, seed=seed)


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()
