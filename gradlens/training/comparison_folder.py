"""The folder of a comparison: one process at a time, one set of settings, a status that tells the truth."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradlens.errors import GradlensError, RecordingError
from gradlens.recording import SCHEMA_VERSION
from gradlens.recording.folder import claim, read_manifest, write_json
from gradlens.training.settings import changes


@contextmanager
def claimed(out: Path, wanted: Mapping[str, Any]) -> Iterator[None]:
    """Hold the folder of a comparison, and keep its manifest.

    Args:
        out: made where it is missing.
        wanted: the manifest without kind, schema and status.

    Raises:
        RecordingError: it holds something else, or another process is writing it; nothing there is changed.
        GradlensError: it was begun with other settings; nothing there is changed.
    """
    lock = claim(out)
    try:
        if (out / "manifest.json").exists():
            _check(out, read_manifest(out), wanted)
        manifest = {"kind": "compare", "schema": SCHEMA_VERSION, **wanted}
        write_json(out / "manifest.json", manifest | {"status": "running"})
        status = "interrupted"
        try:
            yield
            status = "complete"
        finally:
            write_json(out / "manifest.json", manifest | {"status": status})
    finally:
        lock.close()


def _check(out: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Let pass what the folder was begun for."""
    if there.get("kind") != "compare":
        raise RecordingError(
            f"A comparison needs a folder of its own; {out} holds a single recording "
            f"({there.get('label')!r}). Choose another --out."
        )
    found = _changes(there, wanted)
    if found:
        raise GradlensError(
            f"A comparison goes on only with the settings it was begun with; in {out} other ones were used: "
            f"{'; '.join(found)}. Choose another --out, or ask for the same settings."
        )


def _changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return a phrase for everything that decides the numbers and differs."""
    old, new = dict(there.get("settings") or {}), dict(here["settings"])
    if old.get("init_only") and not new["init_only"]:
        old["init_only"] = False  # training is added to what was measured: nothing is lost
    before, now = ({o["operand"]: o for o in manifest.get("operands") or ()} for manifest in (there, here))
    found = changes(old, new)
    if list(before) != list(now):
        found.append(f"operands (were {', '.join(before)}; now {', '.join(now)})")
    for name in before.keys() & now.keys():
        found += [f"{what} of {name}" for what in _operand_changes(before[name], now[name])]
    if (there.get("task") or {}).get("sha256") != (here.get("task") or {}).get("sha256"):
        versions = ((manifest.get("task") or {}).get("version") for manifest in (there, here))
        found.append("the task's data (was {}, now {})".format(*versions))
    return found


def _operand_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = changes(before.get("arguments") or {}, now.get("arguments") or {})
    if before.get("source_sha256") != now.get("source_sha256"):
        found.append("the source file, which was edited since,")
    return found
