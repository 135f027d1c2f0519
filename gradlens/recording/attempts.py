"""A process' attempts, as its segments hold them, and what was lost of them."""

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from gradlens.errors import RecordingError
from gradlens.recording.folder import Name, real, segments
from gradlens.recording.segment import Segment, read
from gradlens.recording.thinned import Thinned, counts

#: Tables with rows of training steps, which are whole or not.
BY_STEP = ("norms", "activations", "params", "outputs", "attention", "tokens", "steps")
#: How often a run is read anew that is thinned meanwhile.
_TRIES = 20
_THINNED = re.compile(r"thinned-r(0|[1-9]\d{0,8})\.json")


@dataclass
class Attempt:
    """One attempt of one process; of a run that is thinned a part of it, or what is left of all up to a part."""

    number: int
    part: int
    rank: int
    segments: dict[str, Segment] = field(default_factory=dict)
    #: The first step of what the process wrote next, if it came to one.
    end: float = inf
    #: How those up to this part were thinned; None where it is whole.
    thinned: Thinned | None = None

    @property
    def start(self) -> float:
        """The first step, of all tables; infinite where it came to none."""
        # A part begins with a step; what a probe read of the step before may come later.
        begun = (s.steps[0] for table, s in self.segments.items() if s.steps and (not self.part or table in BY_STEP))
        return min(begun, default=inf)

    @property
    def began(self) -> float:
        """The first step of the attempt, as far as this part knows."""
        return self.thinned.began if self.thinned else self.start


@dataclass(frozen=True)
class Read:
    """The segments that count, and what they hold.

    Attributes:
        attempts: in order.
        thinned: by rank, what was thinned.
        damage: a sentence for each damage.
        bound: the first step of which something is lost.
    """

    attempts: list[Attempt]
    thinned: Mapping[int, Thinned]
    damage: list[str]
    bound: float


def read_attempts(
    folder: Path,
    run: str,
    *,
    columns: Collection[str] | None = None,
    rank: int | None = None,
    before: tuple[int, int] | None = None,
) -> Read:
    """Read all segments of a run, also while it is written and thinned.

    Args:
        folder: the run folder.
        run: number of the run; empty for one of before there were checksums.
        columns: those that are kept of each table; by default all.
        rank: of a process; the others are left out.
        before: an attempt and a part of it; that and later ones are left out.

    Raises:
        FileNotFoundError: a segment went away meanwhile.
        RecordingError: what says how it was thinned is damaged.
    """
    for _ in range(_TRIES):
        thinned = all_thinned(folder, rank)
        try:
            asked = {
                name: path
                for name, path in segments(folder).items()
                if rank in (None, name.rank) and (before is None or name.place < before)
            }
            found = _read_all(asked, run, thinned, columns)
        except FileNotFoundError:
            if all_thinned(folder, rank) == thinned:
                raise
        else:
            if all_thinned(folder, rank) == thinned:
                break
    else:
        raise RecordingError(f"The run at {folder} is thinned faster than it can be read. Read it when it has ended.")
    attempts = _attempts(found, thinned)
    lost = [one for attempt in attempts for one in _lost(attempt) if one[0] < attempt.end]
    lost += _gone(found, thinned)
    damage = [f"segments/{name}.arrows is damaged: {s.damage}." for name, s in found.items() if s.damage]
    damage += [said for _, said in lost if said not in damage]
    return Read(attempts, thinned, damage, min((step for step, _ in lost), default=inf))


def all_thinned(folder: Path, rank: int | None = None) -> dict[int, Thinned]:
    """Return what was thinned, by rank: of all processes, or of one."""
    ranks = sorted(int(m[1]) for entry in _listed(folder) if (m := _THINNED.fullmatch(entry.name)))
    found = {one: Thinned.read(folder, one) for one in ranks if rank in (None, one)}
    return {one: said for one, said in found.items() if said is not None}


def _listed(folder: Path) -> Iterator["os.DirEntry[str]"]:
    return os.scandir(real(folder / "segments", stat.S_ISDIR))


def _read_all(
    asked: Mapping[Name, Path], run: str, thinned: Mapping[int, Thinned], columns: Collection[str] | None
) -> dict[Name, Segment]:
    """Read the segments so that each step that is counted finds its rows, also while they are written."""
    paths = {name: path for name, path in asked.items() if counts(name, thinned.get(name.rank))}
    found = {name: read(path, name, run, columns=columns) for name, path in paths.items() if name.table == "steps"}
    found |= {name: read(path, name, run, columns=columns) for name, path in paths.items() if name.table != "steps"}
    for name, segment in found.items():
        segment.grew = name.table == "steps" and paths[name].lstat().st_size > segment.size
    return {name: found[name] for name in paths}


def _attempts(found: Mapping[Name, Segment], thinned: Mapping[int, Thinned]) -> list[Attempt]:
    """Group segments by attempt and part, in order, each with where what the process wrote next begins."""
    grouped: dict[tuple[int, int, int], Attempt] = {}
    for name, segment in found.items():
        said = thinned[name.rank] if name.thinned else None
        attempt = grouped.setdefault((*name.place, name.rank), Attempt(*name.place, name.rank, thinned=said))
        attempt.segments[name.table] = segment
    begins: dict[int, float] = {}
    for attempt in reversed(grouped.values()):
        attempt.end = begins.get(attempt.rank, inf)
        begins[attempt.rank] = min(attempt.end, attempt.start)
    return list(grouped.values())


# ------------------------------------------------------------------ what is lost


def _lost(attempt: Attempt) -> Iterator[tuple[float, str]]:
    """Yield steps that were counted and are not whole any more, and why."""
    steps = attempt.segments.get("steps", Segment(next(iter(attempt.segments.values())).name.of("steps")))
    counted = steps.steps
    there = {table: set(segment.crcs) for table, segment in attempt.segments.items()}
    missed: set[str] = set()
    for index, wrote in enumerate(steps.wrote):
        for table in [t for t, crc in wrote.items() if t not in missed and crc not in there.get(t, ())]:
            missed.add(table)
            # Rows of no step, and those that came after the step before.
            step = counted[index] if table in BY_STEP else counted[index - 1] if table == "probes" and index else -inf
            yield step, f"segments/{steps.name.of(table)}.arrows lacks rows that belong to step {counted[index]}."
    last = max(counted, default=-inf)
    if steps.damage:
        began = attempt.start if attempt.start < inf else -inf  # what it replaced is not known
        yield (last + 1 if counted else began), f"segments/{steps.name}.arrows is damaged: {steps.damage}."
    for table, segment in attempt.segments.items():
        ahead = sorted({step for step in segment.steps if step > last}) if table in BY_STEP else []
        if len(ahead) > 1 and not steps.grew:  # a kill leaves one
            yield ahead[0], f"segments/{steps.name}.arrows lacks step {ahead[0]}, which {table} has."


def _gone(found: Mapping[Name, Segment], thinned: Mapping[int, Thinned]) -> Iterator[tuple[float, str]]:
    """Yield what was seen when later segments were begun, or when it was thinned, and is not there."""
    sizes = {str(name): segment.size for name, segment in found.items()}
    seen = {name: size for segment in found.values() for name, size in segment.before.items()}
    seen |= {name: size for said in thinned.values() for name, size in said.sizes.items()}
    for text, size in seen.items():
        name = Name.read(text)
        if name is not None and not counts(name, thinned.get(name.rank)):
            continue  # it was thinned since
        if sizes.get(text, 0) < size:
            left = next((max(s.steps) + 1 for other, s in found.items() if str(other) == text and s.steps), -inf)
            yield left, f"segments/{text}.arrows is shorter than it was, or missing."
