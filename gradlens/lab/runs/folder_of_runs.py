"""A folder of several runs: one process at a time, one set of settings, a status that tells the truth."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradlens.errors import GradlensError, RecordingError
from gradlens.recording import SCHEMA_VERSION
from gradlens.recording.folder import FOLDERS_OF_RUNS, read_manifest, write_json
from gradlens.recording.locks import claim, release

Manifest = Mapping[str, Any]


@contextmanager
def claimed(out: Path, wanted: Manifest, changed: Callable[[Manifest, Manifest], list[str]]) -> Iterator[None]:
    """Hold the folder of a comparison or a reproduction, and keep its manifest.

    Args:
        out: made where it is missing.
        wanted: the manifest without schema and status; its ``kind`` is one of ``FOLDERS_OF_RUNS``.
        changed: from the manifest that is there and the one that is wanted, a phrase for everything that decides the
            numbers and differs.

    Raises:
        RecordingError: it holds something else, or another process is writing it; nothing there is changed.
        GradlensError: it was begun with other settings; nothing there is changed.
    """
    lock = claim(out)
    try:
        if (out / "manifest.json").exists():
            _check(out, read_manifest(out), wanted, changed)
        manifest = {"schema": SCHEMA_VERSION, **wanted}
        write_json(out / "manifest.json", manifest | {"status": "running"})
        status = "interrupted"
        try:
            yield
            status = "complete"
        finally:
            write_json(out / "manifest.json", manifest | {"status": status})
    finally:
        release(lock)


def _check(out: Path, there: Manifest, wanted: Manifest, changed: Callable[[Manifest, Manifest], list[str]]) -> None:
    """Let pass what the folder was begun for."""
    what = FOLDERS_OF_RUNS[wanted["kind"]]
    if there.get("kind") != wanted["kind"]:
        other = FOLDERS_OF_RUNS.get(str(there.get("kind")), f"single recording ({there.get('label')!r})")
        raise RecordingError(f"A {what} needs a folder of its own; {out} holds a {other}. Choose another --out.")
    found = changed(there, wanted)
    if found:
        raise GradlensError(
            f"A {what} goes on only with the settings it was begun with; in {out} other ones were used: "
            f"{'; '.join(found)}. Choose another --out, or ask for the same settings."
        )
