"""Which steps of a long run are left when it is thinned, and the file that says so.

What is old, all but the last 2,000 recorded steps, is cut into spans of as many steps each, a power of two, so few that
there are at most 4,000; of each the first step stays. With them stay the first steps of all, and those around events.
What is thinned again, as the run grows and its spans double, comes to what thinning all of it at once would have left:
processes that record the same steps thin the same ones, whenever they do it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from gradlens.errors import RecordingError
from gradlens.recording.folder import Name, content, write_json
from gradlens.recording.manifest import SEAL, is_whole

#: Recorded steps that are whole, at least; spans of those before, at most.
WHOLE, SPANS = 2000, 4000
#: The first steps, which stay; recorded steps before and after an event that stay.
_FIRST, _NEAR = 32, 8
#: Events that a restless series shows again and again, and the most steps that stay for their sake: the first.
_NOISY, _MOST_NOISY = ("loss", "grad_norm"), 2000


def firsts(steps: np.ndarray, span: int) -> np.ndarray:
    """Whether steps, in order, are among the first of all or the first of their span."""
    spans = steps // span
    found = np.append(True, spans[1:] != spans[:-1])[: len(steps)]
    found[:_FIRST] = True
    return found


def span_of(steps: np.ndarray) -> int:
    """Return how long spans must be."""
    span = 1
    while len(steps) and 1 + np.count_nonzero(np.diff(steps // span)) > SPANS:
        span *= 2
    return span


def near_events(reasons: np.ndarray) -> np.ndarray:
    """Whether recorded steps, in order, are near an event, given the one that each follows, or None."""

    def near(marked: np.ndarray) -> np.ndarray:
        found = np.zeros(len(reasons), dtype=bool)
        for at in np.flatnonzero(marked):
            found[max(at - 1 - _NEAR, 0) : at + 1 + _NEAR] = True  # the first that follows comes after the event
        return found

    follows = np.array([isinstance(reason, str) for reason in reasons], dtype=bool)
    restless = np.isin(reasons.astype(str), _NOISY)
    noisy = near(follows & restless)
    return near(follows & ~restless) | (noisy & (np.cumsum(noisy) <= _MOST_NOISY))


@dataclass(frozen=True)
class Thinned:
    """What was thinned of a process' rows: what its file says.

    Attributes:
        attempt: the last one of which there are rows.
        part: the last one of it that was thinned.
        began: the first step of that attempt.
        before: the step from which on all are there.
        span: how many steps one of them stands for.
        sizes: of its segments, by name.
    """

    attempt: int
    part: int
    began: int
    before: int
    span: int
    sizes: Mapping[str, int]

    def write(self, folder: Path, rank: int) -> None:
        """Say it: from now on these segments stand for those before.

        Raises:
            RecordingError: the disk refuses it; what was said before holds.
        """
        write_json(_path(folder, rank), asdict(self))

    @staticmethod
    def read(folder: Path, rank: int) -> "Thinned | None":
        """Return what is said of a process; None where nothing was thinned.

        Raises:
            RecordingError: the file is damaged.
        """
        path = _path(folder, rank)
        try:
            found: Any = json.loads(content(path).decode("utf-8"))
            if SEAL in found and is_whole(found) and _fits(found):
                return Thinned(**{field.name: found[field.name] for field in fields(Thinned)})
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError, AttributeError, TypeError):
            pass
        raise RecordingError(f"{path} must say what was thinned; it was damaged or changed. Restore it from a copy.")


def counts(name: Name, thinned: Thinned | None) -> bool:
    """Whether a segment is one of those that are read, given what was thinned of its process."""
    if thinned is None:
        return not name.thinned
    return str(name) in thinned.sizes if name.thinned else name.place > (thinned.attempt, thinned.part)


def _fits(found: Mapping[str, Any]) -> bool:
    numbers = [found.get(field.name) for field in fields(Thinned) if field.name != "sizes"]
    sizes = found.get("sizes")
    return isinstance(sizes, dict) and all(type(number) is int for number in [*numbers, *sizes.values()])


def _path(folder: Path, rank: int) -> Path:
    return folder / "segments" / f"thinned-r{rank}.json"
