"""What an earlier run left at ``out``: reuse it, go on with it, or say in what it differs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradlens.errors import RecordingError
from gradlens.recording import Recording, load
from gradlens.recording.folder import FINISHED, read_manifest
from gradlens.recording.manifest import SAID_OF_BLOCKS

#: The metadata that decides a run's numbers; they must agree.
_DECIDING = ("kind", "variant", "operand", "model", "task", "training", "seeds", "batch", "probes")
#: Settings that change how a run is made and not what it gives, up to rounding; and what is known of its blocks.
_FREE = frozenset({"training.device", "training.checkpoint_every", *(f"model.{name}" for name in SAID_OF_BLOCKS)})


def is_finished(out: Path) -> bool:
    """Whether a run folder holds a run that came to its end, whatever its settings."""
    return (out / "manifest.json").exists() and read_manifest(out).get("status") in FINISHED


def finished_run(out: Path, wanted: Mapping[str, Any]) -> Recording | None:
    """Return the finished run at ``out``; None where there is none yet, or one that can be gone on with.

    Args:
        out: the run folder, which need not exist.
        wanted: the metadata of the run that is asked for.

    Raises:
        RecordingError: the folder holds a run with other settings; the message names them.
    """
    if not (out / "manifest.json").exists():
        return None
    earlier = load(out)
    differing = differences(earlier.meta, wanted)
    if differing:
        shown = "; ".join(differing[:5]) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else "")
        raise RecordingError(
            f"A run goes on only with the settings it was begun with; {out} holds {earlier.label!r}, "
            f"where {shown}. Ask for the same settings, choose another folder, or delete this one."
        )
    return earlier if earlier.meta.get("status") in FINISHED else None


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each setting in which two runs differ, such as ``training.lr is 0.1, not 0.2``."""
    old, new = _flat(there), _flat(here)
    return [
        f"{name} is {_shown(old, name)}, not {_shown(new, name)}"
        for name in sorted((old.keys() | new.keys()) - _FREE)
        if name not in old or name not in new or old[name] != new[name]
    ]


def _flat(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the deciding metadata as JSON reads it back, keyed by dotted path."""
    plain = json.loads(json.dumps({key: meta.get(key) for key in _DECIDING}, default=str))
    return dict(_leaves(plain, ()))


def _leaves(value: Any, path: tuple[str, ...]) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, below in value.items() for leaf in _leaves(below, (*path, key))]
    return [(".".join(path), value)]


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "absent"
