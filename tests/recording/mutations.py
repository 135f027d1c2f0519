"""Damage to run folders, one function a kind. Each does it to one file or a few, and says what it did."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradlens.recording import manifest as manifests

#: Does it and says what; an empty string where the folder has nothing to do it to.
Mutation = Callable[[Path, Path, random.Random], str]


def _tables(folder: Path) -> list[Path]:
    """Return the files that hold rows."""
    return sorted([*folder.glob("*.parquet"), *folder.glob("segments/*.arrows")])


def _files(folder: Path) -> list[Path]:
    return [*_tables(folder), *folder.glob("segments/thinned-*.json"), folder / "manifest.json"]


def _flip(folder: Path, other: Path, chance: random.Random) -> str:
    path = chance.choice(_files(folder))
    content = bytearray(path.read_bytes())
    places = [chance.randrange(len(content) * 8) for _ in range(chance.choice((1, 1, 1, 2, 20)))]
    for place in places:
        content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    return f"bits {places[:3]} of {path.name}"


def _zero(folder: Path, other: Path, chance: random.Random) -> str:
    path = chance.choice(_files(folder))
    content = bytearray(path.read_bytes())
    length = min(len(content), chance.choice((1, 8, 64, 512, 4096)))
    begin = chance.randrange(len(content) - length + 1)
    content[begin : begin + length] = bytes(length)
    path.write_bytes(content)
    return f"{length} bytes at {begin} of {path.name} zeroed"


def _truncate(folder: Path, other: Path, chance: random.Random) -> str:
    path = chance.choice(_files(folder))
    size = path.stat().st_size
    left = chance.choice((0, chance.randrange(size), size - chance.randrange(1, min(size, 64)), size // 2))
    os.truncate(path, left)
    return f"{path.name} cut from {size} to {left}"


def _extend(folder: Path, other: Path, chance: random.Random) -> str:
    path = chance.choice(_files(folder))
    content = path.read_bytes()
    tail = chance.choice((bytes(64), content[-200:], chance.randbytes(100), content))
    path.write_bytes(content + tail)
    return f"{len(tail)} bytes behind {path.name}"


def _cut_out(folder: Path, other: Path, chance: random.Random) -> str:
    """Remove a range of bytes from the middle, as a broken copy does."""
    path = chance.choice(_tables(folder))
    content = path.read_bytes()
    begin = chance.randrange(len(content))
    length = chance.choice((1, 8, 512, len(content) // 4))
    path.write_bytes(content[:begin] + content[begin + length :])
    return f"{length} bytes at {begin} of {path.name} removed"


def _delete(folder: Path, other: Path, chance: random.Random) -> str:
    path = chance.choice(_files(folder))
    path.unlink()
    return f"{path.name} deleted"


def _copy_over(folder: Path, other: Path, chance: random.Random) -> str:
    """Put a table's file in the place of another of the same run."""
    paths = _tables(folder)
    source, target = chance.sample(paths, 2)
    shutil.copy(source, target)
    return f"{source.name} over {target.name}"


def _swap(folder: Path, other: Path, chance: random.Random) -> str:
    first, second = chance.sample(_tables(folder), 2)
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    return f"{first.name} and {second.name} swapped"


def _swap_alike(folder: Path, other: Path, chance: random.Random) -> str:
    """Swap files of one table: between ranks or attempts."""
    paths = _tables(folder)
    pairs = [(a, b) for a in paths for b in paths if a < b and a.name.split("-")[0] == b.name.split("-")[0]]
    if not pairs:
        return ""
    first, second = chance.choice(pairs)
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    return f"{first.name} and {second.name} swapped"


def _from_other_run(folder: Path, other: Path, chance: random.Random) -> str:
    path = chance.choice(_files(folder))
    shutil.copy(other / path.relative_to(folder), path)
    return f"{path.name} of another run"


def _rank_from_other_run(folder: Path, other: Path, chance: random.Random) -> str:
    """Put all files of one rank and attempt in place of another run's."""
    names = {path.stem.split("-", 1)[1] for path in _tables(folder) if "-" in path.stem}
    if not names:
        return ""
    name = chance.choice(sorted(names))
    for path in folder.glob(f"segments/*-{name}.arrows"):
        shutil.copy(other / "segments" / path.name, path)
    return f"*-{name} of another run"


def _stray(folder: Path, other: Path, chance: random.Random) -> str:
    """Leave a copy under a name that a file manager or a sync program gives, or another rank's."""
    path = chance.choice(_tables(folder))
    ends = (" (1)", " - Copy", ".sync-conflict-20260101", "~", "-r0-a9", " 2")
    name = path.stem + chance.choice(ends) + path.suffix
    if "-r" in path.stem and chance.random() < 0.5:
        name = f"{path.stem.split('-')[0]}-r{chance.randrange(4)}-a{chance.randrange(4)}.arrows"
        name = name if name != path.name else f"{path.stem}9.arrows"
    shutil.copy(path, path.with_name(name))
    return f"{path.name} copied as {name}"


def _segments_left(folder: Path, other: Path, chance: random.Random) -> str:
    """Leave segments in a finished run, as a copy without deletion or a sync program does."""
    if (folder / "segments").exists():
        return ""
    source = other.with_name("two killed")
    (folder / "segments").mkdir()
    for path in chance.sample(_tables(source), chance.randrange(1, 10)):
        shutil.copy(path, folder / "segments" / path.name)
    return "segments of another run"


def _foreign(folder: Path, other: Path, chance: random.Random) -> str:
    """Leave something else under a name of ours, or put it in the place of a file."""
    contents = (
        b"",
        b"\0" * 5000,
        chance.randbytes(6000),
        b"years of work\n" * 400,
        b"\xff\xff\xff\xff\xff\xff\xff\x7f" * 9,
    )
    places = [*_files(folder), folder / "segments" / "norms-r1-a0.arrows", folder / "segments" / "steps-r9-a9.arrows"]
    path = chance.choice(places)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(chance.choice(contents))
    return f"foreign {path.name}"


def _link(folder: Path, other: Path, chance: random.Random) -> str:
    """Plant a symbolic link in the place of a file or of a folder."""
    place = chance.choice([*_files(folder), folder / "segments", folder / "lock"])
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    targets = [other / place.relative_to(folder), Path("/dev/zero"), Path("/dev/null"), place, Path("/nowhere")]
    target = chance.choice(targets)
    place.symlink_to(target)
    return f"{place.name} is a link to {target}"


def _special(folder: Path, other: Path, chance: random.Random) -> str:
    """Put a folder or a pipe in the place of a file."""
    place = chance.choice([*_files(folder), folder / "lock"])
    place.unlink(missing_ok=True)
    if chance.random() < 0.5:
        place.mkdir()
        return f"{place.name} is a folder"
    os.mkfifo(place)
    return f"{place.name} is a pipe"


_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 2**63, 10**30, 1.5, float("nan"), float("inf"), "", "x", "1", "\x1b[2J\x1b]0;own\x07", "①",
    "👩\u200d👩\u200d👧", "\ud800", "../passwd", "a" * 100_000, [], [[]], [None], ["x"], {}, {"x": 1}, {"world": 0},
    {"world": "two"}, {"data": 0, "world": 2}, {"data": 2**40}, {"norms": 3}, [1, 2, "three"],
)  # fmt: skip
_KEYS = (
    "schema", "kind", "label", "status", "attempts", "tables", "model", "every", "watch", "processes", "audit", "seeds",
    "task", "training", "limit", "versions", "runs", "tokens", "samples", "variant", "diverged_at", "run",
)  # fmt: skip


def _edited(folder: Path, chance: random.Random, *, sealed: bool) -> str:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    key = chance.choice([key for key in _KEYS if not (sealed and key == "processes")])
    if chance.random() < 0.2:
        content.pop(key, None)
        done = f"manifest without {key}"
    else:
        within = content.get(key)
        value = chance.choice(_VALUES)
        if isinstance(within, dict) and within and chance.random() < 0.5:
            key = chance.choice(sorted(within))
            within[key] = value
        else:
            content[key] = value
        done = f"manifest with {key} = {str(value)[:40]!r}"
    text = json.dumps(manifests.sealed(content) if sealed else content)
    path.write_text(text, "utf-8", "surrogatepass")
    return done


def _manifest_edited(folder: Path, other: Path, chance: random.Random) -> str:
    return _edited(folder, chance, sealed=False)


def _manifest_forged(folder: Path, other: Path, chance: random.Random) -> str:
    """Edit it and seal it anew, as a program of another version would.

    Another number of processes, in its range and sealed, is a lie of whoever sealed it: that is left out.
    """
    return _edited(folder, chance, sealed=True)


def _manifest_other_json(folder: Path, other: Path, chance: random.Random) -> str:
    texts = ("", "{", "[]", "null", "3", '"x"', "{}", '{"schema": 1}', "[" * 100_000, '{"schema": ' + "9" * 5000 + "}",
             '{"schema": 1e400}', '{"schema": NaN}', "\ufeff{}", '{"schema": 1, "schema": "x"}')  # fmt: skip
    text = chance.choice(texts)
    (folder / "manifest.json").write_text(text)
    return f"manifest {text[:40]!r}"


MUTATIONS: dict[str, Mutation] = {
    "bits flipped": _flip,
    "bytes zeroed": _zero,
    "cut short": _truncate,
    "bytes added": _extend,
    "bytes cut out": _cut_out,
    "deleted": _delete,
    "copied over": _copy_over,
    "swapped": _swap,
    "swapped between ranks or attempts": _swap_alike,
    "of another run": _from_other_run,
    "a rank of another run": _rank_from_other_run,
    "stray copy": _stray,
    "segments left": _segments_left,
    "foreign file": _foreign,
    "planted link": _link,
    "folder or pipe": _special,
    "manifest edited": _manifest_edited,
    "manifest edited and sealed": _manifest_forged,
    "manifest of other JSON": _manifest_other_json,
}


def mutate(kind: str, folder: Path, other: Path, chance: random.Random) -> str:
    """Do one mutation of a kind; return what was done, or an empty string where there is nothing to do it to."""
    return MUTATIONS[kind](folder, other, chance)
