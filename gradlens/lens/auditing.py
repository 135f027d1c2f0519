"""From what was observed to what the audit says."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gradlens.lens.audit import Audit
from gradlens.lens.hook_state import HookState
from gradlens.lens.hooks import has_others
from gradlens.lens.observations import UNUSED, Observations
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.passes import NOTHING, PAUSED, RAISED, ZEROED
from gradlens.lens.taps import NormTap, Tap
from gradlens.lens.taps.functional import Watcher
from gradlens.native import core

_GRADIENT = "Parameter gradients: at the end of backward, after reductions, before clipping, loss scale divided out."
#: What was left out, and why.
_WHY = {
    NOTHING: "backward passes that left no gradient in the parameters",
    ZEROED: "backward passes whose gradient was thrown away before the last one that counts",
    RAISED: "backward passes that raised",
    PAUSED: "backward passes inside of lens.paused()",
    UNUSED: "forward passes that no backward pass came back to",
}


def audit_of(state: HookState, taps: Sequence[Tap], functions: Watcher, parameters: ParameterReader | None) -> Audit:
    """Say what was seen and what was missed.

    Args:
        state: holds what was observed.
        taps: of the modules.
        functions: knows the normalizations that ran as functions.
        parameters: None where parameters are not watched.
    """
    seen, every = state.observed, [tap for tap in taps if isinstance(tap, NormTap)]
    told = {tap.site.path: tap.proving.note for tap in every if tap.proving.note}
    taps_of_norms = [tap for tap in every if tap.is_norm]
    norms = tuple(tap.site.path for tap in taps_of_norms)
    setting = _setting(state, taps_of_norms, functions)
    # What a graph holds has run, though nothing of it is a row where no gradient came back.
    ran = seen.fired.union(setting["compiled"])
    fired = tuple(path for path in norms if path in ran)
    elsewhere = seen.without_graph | seen.transformed | seen.elsewhere | functions.as_functions()
    elsewhere |= seen.unsupported.keys() | told.keys()
    # The front of a model may be frozen on purpose; where all of it is, nobody knows why it is recorded.
    frozen = seen.frozen if set(fired) - seen.frozen else set()
    return Audit(
        norms=norms,
        fired=fired,
        silent=tuple(path for path in norms if path not in ran and path not in elsewhere),
        without_graph=tuple(path for path in norms if path in seen.without_graph),
        transformed=tuple(path for path in norms if path in seen.transformed),
        functions_recorded=functions.record,
        without_grad_output=tuple(path for path in fired if path not in seen.arrived["grad_output"] | frozen),
        without_grad_input=tuple(path for path in fired if path not in seen.arrived["grad_input"]),
        strangers=tuple(tap.site.path for tap in every if tap.is_stranger),
        unsupported=dict(seen.unsupported),
        functional={at: count for at, count in seen.functional.items() if at.split(":")[0] not in seen.found},
        impossible=tuple(path for path in norms if path in seen.impossible),
        notes=tuple(sorted(seen.notes | {f"{path}: {what}." for path, what in told.items()})),
        tied=dict(parameters.tied) if parameters is not None else {},
        hooked=tuple(tap.site.path for tap in taps_of_norms if has_others(tap.site.module)),
        nonfinite=seen.first_nonfinite,
        passes=_passes_in_words(seen),
        steps=seen.steps,
        gradient=_GRADIENT,
        calls={
            "most": max(seen.calls.values(), default=0),
            "sites": {site: calls for site, calls in seen.calls.items() if calls != 1},
        },
        setting=setting | ({"weights": parameters.dtypes()} if parameters is not None else {}),
    )


def _setting(state: HookState, norms: list[NormTap], functions: Watcher) -> dict[str, Any]:
    """Return what the numbers depend on besides the model, as far as it was seen."""
    seen = state.observed
    dtypes = Counter(str(tap.dtype).removeprefix("torch.") for tap in norms if tap.dtype is not None)
    return {
        "compiled": [tap.site.path for tap in norms if tap.traced.in_graph],
        "graphs_dropped": seen.graphs_dropped,
        "checkpointed": [tap.site.path for tap in norms if tap.ran_again],
        "autocast": seen.autocast,
        "input_dtypes": dict(dtypes),
        "loss_scale": seen.loss_scale,
        "passes": list(seen.backwards),
        "older": seen.older,
        "older_of": seen.asked_older,
        "older_in": dict(seen.older_in),
        "zeroed_in": dict(seen.zeroed_in),
        "every": seen.cadence.every,
        "cadence": seen.cadence.told(),
        "functional": functions.record,
        "measured_by": "native" if core.library is not None and state.device.type == "cpu" else "torch",
        "by_names": [tap.site.path for tap in norms if tap.site.path not in state.placing.read and not tap.site.told],
        "nonfinite": dict(seen.broken),
        "world": state.world.size,
        "data": len(state.world.data),
    }


def _passes_in_words(seen: Observations) -> tuple[str, ...]:
    """Say which passes were left out, and where nobody could tell."""
    said = []
    if seen.without is not None:
        said.append(
            f"In step {seen.without} no backward pass was seen to leave a gradient in the parameters: all that "
            "came to their end are in the rows."
        )
    if seen.left_out:
        reasons = [f"{_WHY[why]} ({count}, first in step {at})" for why, (count, at) in seen.left_out.items()]
        said.append(f"Left out of the rows: {'; '.join(reasons)}.")
    return tuple(said)
