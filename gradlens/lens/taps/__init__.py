"""What stands on the modules of a model: the only place, with ``hooks``, where hooks are made."""

from gradlens.lens.hook_state import HookState
from gradlens.lens.sites import Site
from gradlens.lens.taps.activation import ActivationTap
from gradlens.lens.taps.norm import NormTap
from gradlens.lens.taps.root import RootTap
from gradlens.lens.taps.tap import Tap

__all__ = ["ActivationTap", "NormTap", "RootTap", "Tap", "taps_of"]


def taps_of(site: Site, state: HookState) -> list[Tap]:
    """Return the taps of one site."""
    if site.kind == "norm":
        return [NormTap(site, state)]
    ends = ["output"] if site.kind == "block" and not site.first_in_stack else ["input", "output"]
    return [ActivationTap(site, state, tensor) for tensor in ends]
