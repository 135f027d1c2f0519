"""The data that is here: fetched into the store, or linked from a folder of the user's; never half of it.

A data set is a folder with ``provenance.json`` in it, which names the channel, package, version, licence and
the sha256 of each file. It is written last into a folder of another name, which is then renamed: a download
that was cut off is no data set.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradlens.errors import GradlensError
from gradlens.lab.tasks.sources import hub
from gradlens.lab.tasks.sources.clients import sha256_of
from gradlens.lab.tasks.sources.source import Brought, Source

PROVENANCE = "provenance.json"
_FACTS = ("channel", "package", "version", "licence", "folder", "sha256")


def data_root() -> Path:
    """Return the folder of all data sets: ``$GRADLENS_DATA``, else ``~/.cache/gradlens/data``."""
    chosen = os.environ.get("GRADLENS_DATA")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "gradlens" / "data"


def located(name: str) -> Path:
    """Return the folder of a data set that is here, each file of it checked against its recorded checksum.

    Raises:
        UnknownNameError: there is no such data set.
        GradlensError: it is not here, or not whole; the message holds the command that brings it.
    """
    source = find(name)
    facts = provenance(source)
    if facts is None:
        raise GradlensError(
            f"The data set {name!r} ({source.what}) must be fetched once, and is not in {data_root()}. "
            f"Run: {source.command}"
        )
    folder = Path(facts["folder"]) if facts["channel"] == "folder" else data_root() / name
    extra = {"folder": f" --from {folder}", "hub": f" --hub {facts['package']}"}.get(facts["channel"], "")
    for file, sha256 in facts["sha256"].items():
        _require_whole(source, folder, file, sha256, extra)
    return folder


def about(name: str) -> dict[str, str]:
    """Return what a task's ``describe`` says of a data set that is here: version, sha256, origin, licence.

    Raises:
        GradlensError: it is not here.
    """
    source = find(name)
    facts = provenance(source)
    if facts is None:
        located(name)
        raise AssertionError
    digest = hashlib.sha256()
    for file, sha256 in sorted(facts["sha256"].items()):
        digest.update(f"{sha256}  {file}\n".encode())
    # What is recorded of a run is published: a folder's name may stand there, its path on this machine may not.
    package = Path(facts["folder"]).name if facts["channel"] == "folder" else facts["package"]
    return {
        "version": facts["version"],
        "sha256": digest.hexdigest(),
        "origin": f"{source.what} ({facts['channel']}: {package})",
        "licence": facts["licence"],
    }


def fetch(name: str, *, again: bool = False) -> Path:
    """Bring a data set through its channel, unless it is here and whole.

    Args:
        name: in ``SOURCES``.
        again: bring it also if it is here; a folder that was linked is then no longer.

    Returns:
        Its folder.

    Raises:
        GradlensError: it comes from a folder only, or its channel failed; what was here is then as before.
    """
    source = find(name)
    if not again and is_whole(name):
        return located(name)
    if source.bring is None:
        raise GradlensError(
            f"No package brings the data set {name!r}: get {source.needs}, and link its folder. Run: {source.command}"
        )
    with _replacing(name) as folder:
        brought = source.bring(folder)
        for file, sha256 in source.sha256.items():
            _require_whole(source, folder, file, sha256)
        _write(source, folder, folder, source.channel, source.package, brought, source.licence)
    return data_root() / name


def link(name: str, folder: Path) -> Path:
    """Take a data set from a folder in its published format, which stays where it is.

    Raises:
        GradlensError: the folder does not hold it.
    """
    source = find(name)
    folder = folder.expanduser().resolve()
    source.files(folder)
    with _replacing(name) as entry:
        licence = f"that of the folder; published under {source.licence}"
        _write(source, entry, folder, "folder", str(folder), Brought("as found in the folder", {}), licence)
    return folder


def fetch_from_hub(name: str, repository: str, config: str | None = None) -> Path:
    """Bring a data set of the same kind from the Hugging Face hub, and return its folder.

    Raises:
        GradlensError: it cannot be read, or has not what is needed; what was here is then as before.
    """
    source = find(name)
    with _replacing(name) as folder:
        brought, licence = hub.bring(name, repository, config, folder)
        package = repository + (f" --config {config}" if config else "")
        _write(source, folder, folder, "hub", package, brought, licence)
    return data_root() / name


def provenance(source: Source) -> dict[str, Any] | None:
    """Return what is recorded of a data set, or None where there is none.

    Raises:
        GradlensError: the record cannot be read.
    """
    path = data_root() / source.name / PROVENANCE
    try:
        facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not isinstance(facts, dict) or not set(_FACTS) <= facts.keys():
            raise ValueError(f"it must be an object with {', '.join(_FACTS)}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise GradlensError(
            f"{path} must be what `gradlens data fetch` wrote; it is not: {error}. Run: {source.command}"
        ) from error
    return facts


def is_whole(name: str) -> bool:
    """Whether a data set is here and each of its files is what it was."""
    try:
        located(name)
    except GradlensError:
        return False
    return True


def find(name: str) -> Source:
    """Return the source of a name.

    Raises:
        UnknownNameError: no data set has this name.
    """
    from gradlens.lab.tasks.sources import SOURCES  # the registry imports this file's ``located``

    source: Source = SOURCES[name]
    return source


def _require_whole(source: Source, folder: Path, file: str, sha256: str, extra: str = "") -> None:
    """Hold a file against its checksum; ``extra`` are the options of the command that brought it."""
    got = sha256_of(folder / file) if (folder / file).is_file() else "no file"
    if got != sha256:
        state = "missing" if got == "no file" else f"changed or cut off (sha256 {got[:12]}..., not {sha256[:12]}...)"
        raise GradlensError(
            f"The data set {source.name!r} must be whole; {folder / file} is {state}. "
            f"Run: gradlens data fetch {source.name}{extra}"
        )


def _write(
    source: Source, entry: Path, folder: Path, channel: str, package: str, brought: Brought, licence: str
) -> None:
    """Write the provenance of the data in ``folder`` into ``entry``, the data set's folder in the store."""
    facts = {
        "name": source.name,
        "channel": channel,
        "package": package,
        "version": brought.version,
        "licence": licence,
        "archives": dict(brought.archives),
        "folder": str(folder) if channel == "folder" else ".",
        "sha256": {file.as_posix(): sha256_of(folder / file) for file in source.files(folder)},
    }
    (entry / PROVENANCE).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")


@contextmanager
def _replacing(name: str) -> Iterator[Path]:
    """Give an empty folder, which takes the place of the data set's when nothing went wrong."""
    root = data_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    except OSError as error:
        raise GradlensError(
            f"Data sets are kept in {root}, which cannot be written: {error.strerror}. Set GRADLENS_DATA to a "
            "folder that can."
        ) from error
    try:
        new = scratch / "new"
        new.mkdir()
        yield new
        if (root / name).exists():
            (root / name).rename(scratch / "old")
        new.rename(root / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
