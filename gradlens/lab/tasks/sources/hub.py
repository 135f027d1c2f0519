"""Data sets of the Hugging Face hub, read with the package ``datasets`` and kept in their published formats.

What is kept is the same as in a folder of the user's: TSV, aligned text, IDX. The tasks know of no hub.
"""

import shutil
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gradlens.errors import GradlensError
from gradlens.lab.tasks.sources.source import Brought

#: The hub's names of splits, to the names of our files.
_SPLITS = {"train": "train", "validation": "valid", "test": "test"}
_TEXTS, _LANGUAGES = ("text", "sentence"), ("en", "de", "vi")


def bring(name: str, repository: str, config: str | None, folder: Path) -> tuple[Brought, str]:
    """Write a data set of the hub into an empty folder; return its version and licence.

    Args:
        name: in ``SOURCES``.
        repository: of the hub, ``owner/name``, or a local folder that ``datasets`` reads.
        config: which of its configurations, where it has several.
        folder: to write to.

    Raises:
        GradlensError: ``datasets`` is missing or cannot read it, or it has not the columns that are needed.
    """
    if name not in _WRITERS:
        raise GradlensError(
            f"The data sets that the hub brings are {', '.join(_WRITERS)}; got {name!r}. Fetch it with --from FOLDER."
        )
    try:
        import datasets
    except ImportError as error:
        raise GradlensError(
            "--hub needs the package datasets, which is not installed. Install this project with its extra hub: "
            "pip install -e '.[hub]'"
        ) from error
    cache = folder / "cache"
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(repository, config, cache_dir=str(cache))
    except Exception as error:  # it raises what its many readers and its client raise
        raise GradlensError(
            f"`datasets` must be able to read {repository}; it failed ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}). Check the name, the configuration and the network."
        ) from error
    splits = {ours: found[theirs] for theirs, ours in _SPLITS.items() if theirs in found}
    if "train" not in splits or len(splits) < 2:
        raise GradlensError(
            f"A data set must have a split train and one of {', '.join([*_SPLITS][1:])}; {repository} has "
            f"{', '.join(found)}. Take another."
        )
    for split, rows in splits.items():
        _WRITERS[name](folder, split, rows, repository)
    info = splits["train"].info
    del found, splits
    shutil.rmtree(cache, ignore_errors=True)
    return Brought(str(info.version or "not versioned"), {}), str(info.license or "as the hub's page of it says")


def _write_labelled(folder: Path, split: str, rows: Any, repository: str) -> None:
    text = next((column for column in _TEXTS if column in rows.column_names), None)
    if text is None or "label" not in rows.column_names:
        raise _lacks(repository, rows, "text (or sentence) and label")
    if split == "test" and set(rows["label"]) == {-1}:  # kept secret, as in GLUE
        return
    _write_lines(folder / f"{split}.tsv", (f"{row['label']}\t{_line(row[text])}" for row in rows))


def _write_pairs(folder: Path, split: str, rows: Any, repository: str) -> None:
    if "translation" not in rows.column_names:
        raise _lacks(repository, rows, "translation, from a language to its text")
    pairs: list[Mapping[str, str]] = list(rows["translation"])
    for language in _LANGUAGES:
        if pairs and language in pairs[0]:
            _write_lines(folder / f"{split}.{language}", (_line(pair[language]) for pair in pairs))


def _write_images(folder: Path, split: str, rows: Any, repository: str) -> None:
    if not {"image", "label"} <= set(rows.column_names):
        raise _lacks(repository, rows, "image and label")
    prefix = "train" if split == "train" else "t10k"
    images = [row["image"].convert("L") for row in rows]
    width, height = images[0].size
    head = struct.pack(">4i", 0x803, len(images), height, width)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + b"".join(image.tobytes() for image in images))
    head = struct.pack(">2i", 0x801, len(images))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + bytes(rows["label"]))


_WRITERS: dict[str, Callable[[Path, str, Any, str], None]] = {
    "movie-reviews": _write_labelled,
    "libreoffice-help": _write_pairs,
    "mnist": _write_images,
}


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _line(text: str) -> str:
    return " ".join(text.split())


def _lacks(repository: str, rows: Any, columns: str) -> GradlensError:
    return GradlensError(
        f"A data set of the hub must have the columns {columns}; {repository} has {', '.join(rows.column_names)}. "
        "Take another, or another --config."
    )
