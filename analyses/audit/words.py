"""What a lens says of itself, in words: ``recording.meta["audit"]`` as answers to questions, and whose they are.

A recording of an earlier gradlens lacks some of its keys: what it does not say is left out, never guessed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.tables import listed

#: Question to its number, and the number in words.
Count = tuple[str, float, str]

#: Kind to what several such recordings are called.
_KINDS = {"init": "models at initialization", "training": "training runs", "attached": "recorded runs"}
_MOST_NAMES = 3


def counts(audit: Mapping[str, Any], as_functions: int) -> Iterator[Count]:
    """Yield how far the norms were seen.

    Args:
        audit: of the lens.
        as_functions: normalizations that are no modules and were recorded.
    """
    if "norms" in audit:
        armed = len(audit["norms"])
        yield _count("found", armed + len(audit.get("strangers") or ()))
        yield _count("armed", armed)
    if "fired" in audit:
        fired = len(audit["fired"])
        yield _count("fired", fired)
        for end in ("output", "input"):
            if (without := audit.get(f"without_grad_{end}")) is not None:
                yield _count(f"{end} reached", fired - len(without))
    if calls := audit.get("calls"):
        yield _calls(calls, len(audit.get("fired") or ()) + as_functions)
    if (unseen := audit.get("functional")) is not None:
        yield _count("as functions", as_functions)
        yield _count("unseen", len(unseen))


def settings(audit: Mapping[str, Any], kind: str) -> Iterator[tuple[str, str]]:
    """Yield what the numbers depend on besides the model, and which gradients they are of.

    Args:
        audit: of the lens.
        kind: of the recording; one at initialization has seeds for steps.
    """
    setting, norms = audit.get("setting") or {}, audit.get("norms") or ()
    if "every" in setting:
        told = str(setting.get("cadence") or "").removesuffix(".")
        yield "recorded", told or _cadence(int(setting["every"]), kind)
    if "passes" in setting:
        yield "backward passes", _passes(setting["passes"], audit.get("passes") or ())
    elif "micro_batches" in setting:
        yield "backward passes", f"{setting['micro_batches']} seen in the first recorded step"
    if "world" in setting:
        yield "gradients of norms", _norm_gradients(setting)
    if gradient := audit.get("gradient"):
        yield "gradients of parameters", _parameter_gradients(str(gradient), setting)
    if "loss_scale" in setting:
        yield "loss scale", _loss_scale(setting)
    if "input_dtypes" in setting or "autocast" in setting:
        yield "precision", _precision(setting)
    if "compiled" in setting:
        anew = "; graphs from before attaching were compiled anew" if setting.get("graphs_dropped") else ""
        where = _where(setting["compiled"], norms, "ran inside a compiled graph", ", and are recorded there")
        yield "compiled", where + anew
    if "checkpointed" in setting:
        yield "checkpoints", _where(setting["checkpointed"], norms, "ran again in backward", ", and count once")
    if "functional" in setting:
        yield "norms as functions", "recorded" if setting["functional"] else "counted in the first step, not recorded"
    if tied := audit.get("tied"):
        yield "tied parameters", f"{some([' = '.join([name, *others]) for name, others in tied.items()])}; read once"


def lacking_processes(processes: Mapping[str, int]) -> str:
    """Say that some of the processes that trained together were not recorded; empty where all were."""
    recorded, world = processes.get("recorded", 1), processes.get("world", 1)
    if recorded >= world:
        return ""
    return (
        f"Only {recorded} of {world} processes recorded: the others' part of the batch, and of sharded parameters, is "
        "missing. Attach a lens with the same out= in each process."
    )


def some(names: Sequence[str]) -> str:
    """Name the first few, and count the others."""
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"


def name_of(labels: Sequence[str], recordings: pd.DataFrame) -> str:
    """Name recordings by what they share, as ``all 4 training runs`` or ``pre-ln (3 recordings)``, else by label.

    Args:
        labels: of the recordings that are meant.
        recordings: all there are, with the columns ``label``, ``variant`` and ``kind``.
    """
    known = recordings[["label", "variant", "kind"]].drop_duplicates("label")
    meant = known[known["label"].isin(labels)]
    kinds = set(meant["kind"])
    if len(meant) > 1:
        of_kind = known[known["kind"].isin(kinds)]
        if len(kinds) == 1 and len(of_kind) == len(meant):
            return f"{_all(len(meant))} {_KINDS.get(kinds.pop(), 'recordings')}"
        if len(meant) == len(known):
            return f"{_all(len(meant))} recordings"
        variants = set(meant["variant"])
        if len(variants) == 1 and (known["variant"].isin(variants)).sum() == len(meant):
            return f"{variants.pop()} ({len(meant)} recordings)"
    names = list(meant["label"])
    if len(names) > _MOST_NAMES:
        names = [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
    return "; ".join(names) if any("," in name for name in names) else listed(names)


def _all(count: int) -> str:
    return "both" if count == 2 else f"all {count}"


def _count(question: str, number: int) -> Count:
    return question, float(number), str(number)


def _calls(calls: Mapping[str, Any], fired: int) -> Count:
    """Return the calls of a norm in a step: from the fewest to the most."""
    other, most = calls.get("sites") or {}, int(calls.get("most") or 0)
    fewest = min([*other.values(), *([1] if len(other) < fired else [])], default=most)
    return "calls a step", float(most), _from_to((fewest, most))


def _cadence(every: int, kind: str) -> str:
    if kind == "init":
        return "one forward and one backward pass a seed"
    return "every step" if every == 1 else f"one step in {every}, from step 0"


def _passes(number: Sequence[int], said: Sequence[str]) -> str:
    """Say how many backward passes make up a step's gradient, and in the lens' own words what else ran."""
    words = {(0, 0): "none was seen in a recorded step", (1, 1): "one a step"}
    own = words.get((number[0], number[1]), f"{_from_to(number)} make up the gradient of a step")
    return f"{own}. {' '.join(said)}" if said else own


def _from_to(number: Sequence[int]) -> str:
    fewest, most = number
    return f"{most}" if fewest == most else f"{fewest} to {most}"


def _norm_gradients(setting: Mapping[str, Any]) -> str:
    world = int(setting["world"])
    shared = setting.get("data", world)
    whose = f"; of all {world} processes, divided by the {shared} that share the data" if world > 1 else ""
    return f"at each call, as backward brings them, before clipping{whose}"


def _parameter_gradients(gradient: str, setting: Mapping[str, Any]) -> str:
    """Return the lens' own words, as far as they apply, with how many passes they sum."""
    words = gradient.removeprefix("Parameter gradients: ").rstrip(".")
    if setting.get("loss_scale") is False:
        words = words.replace(", loss scale divided out", "")
    if setting.get("world") == 1:
        words = words.replace(", after reductions", "")
    number, words = setting.get("passes") or (1, 1), f"read {words}"
    return f"{words}; summed over {_from_to(number)} backward passes a step" if max(number) > 1 else words


def _loss_scale(setting: Mapping[str, Any]) -> str:
    if setting["loss_scale"]:
        return "the GradScaler's, divided out of every gradient"
    half = "float16" in (setting.get("autocast"), *(setting.get("input_dtypes") or {}))
    return "no scaler was given" + (": where the loss was scaled, so are all gradients here" if half else "")


def _precision(setting: Mapping[str, Any]) -> str:
    dtypes = setting.get("input_dtypes") or {}
    counted = (f"{dtype} ({number})" if len(dtypes) > 1 else dtype for dtype, number in dtypes.items())
    kinds = f"inputs of norms in {', '.join(counted)}; " if dtypes else ""
    around = f"autocast to {setting['autocast']}" if setting.get("autocast") else "no autocast"
    return f"{kinds}{around}; sums in float32 or better"


def _where(paths: Sequence[str], norms: Sequence[str], what: str, so: str) -> str:
    if not paths:
        return f"no norm {what}"
    if len(paths) >= len(norms):
        return f"all norms {what}{so}"
    return f"{len(paths)} of {len(norms)} norms {what}{so}: {some(paths)}"
