"""From segments to tables: which rows count, and what is said where some are lost.

Every process has attempts; an attempt that starts at step s replaces the process' earlier rows from s on. A step
counts when every process has counted it, which its row of ``steps``, written last, does. That row tells which rows of
the other tables belong to it: a segment that lacks them was damaged; the recording then ends before that step, and says
so.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gradlens.errors import RecordingError
from gradlens.recording.derive import merge
from gradlens.recording.folder import Name, arrow_schema, recorded_ranks, segments
from gradlens.recording.schema import ADDED, TABLES
from gradlens.recording.segment import Segment, read

#: Tables with rows of training steps, which are whole or not.
BY_STEP = ("norms", "activations", "params", "outputs", "attention", "tokens", "steps")


@dataclass(frozen=True)
class History:
    """What the segments of a run hold.

    Attributes:
        tables: stored tables, merged; one without rows is left out.
        ranks: processes that wrote rows.
        damage: a sentence for each damage that was found.
    """

    tables: dict[str, pd.DataFrame]
    ranks: int
    damage: list[str]


@dataclass
class _Attempt:
    """One attempt of one process."""

    rank: int
    segments: dict[str, Segment] = field(default_factory=dict)
    #: The first step of the process' next attempt that came to one.
    end: float = inf

    @property
    def start(self) -> float:
        """The first step, of all tables; infinite where it came to none."""
        return min((segment.steps[0] for segment in self.segments.values() if segment.steps), default=inf)


def read_history(folder: Path, run: str, only: Mapping[str, Collection[str]] = MappingProxyType({})) -> History:
    """Read all segments of a run.

    Args:
        folder: the run folder.
        run: number of the run; empty for one of before there were checksums.
        only: table to the stored columns that are kept; by default all.

    Raises:
        FileNotFoundError: a segment went away meanwhile.
        RecordingError: nothing is left that is whole.
    """
    found = _read_all(folder, run)
    attempts = _attempts(found)
    frames = {table: frame for table in TABLES if (frame := _rows(attempts, table, only.get(table))) is not None}
    lost = [one for attempt in attempts for one in _lost(attempt) if one[0] < attempt.end]
    lost += _gone(found)
    damage = [f"segments/{name}.arrows is damaged: {s.damage}." for name, s in found.items() if s.damage]
    damage += [said for _, said in lost if said not in damage]
    bound = min((step for step, _ in lost), default=inf)
    tables = _whole(frames, attempts, bound)
    if damage and not len(tables.get("steps", ())):
        raise RecordingError(
            f"No step of the run at {folder} is whole: {' '.join(damage[:2])} Restore it from a copy of the folder."
        )
    if bound < inf:
        damage.append(f"Steps from {bound:.0f} on are left out.")
    tables = {table: merge(table, expanded(frame)) for table, frame in tables.items()}
    return History(tables, recorded_ranks(name for name, s in found.items() if s.rows is not None), damage)


def _read_all(folder: Path, run: str) -> dict[Name, Segment]:
    """Read the segments so that each step that is counted finds its rows, also while they are written."""
    paths = segments(folder)
    found = {name: read(path, name, run) for name, path in paths.items() if name.table == "steps"}
    found |= {name: read(path, name, run) for name, path in paths.items() if name.table != "steps"}
    for name, segment in found.items():
        segment.grew = name.table == "steps" and paths[name].lstat().st_size > segment.size
    return {name: found[name] for name in paths}


def _attempts(found: Mapping[Name, Segment]) -> list[_Attempt]:
    """Group segments by attempt, in order, each with where the process' next one begins."""
    grouped: dict[tuple[int, int], _Attempt] = {}
    for name, segment in found.items():
        attempt = grouped.setdefault((name.attempt, name.rank), _Attempt(name.rank))
        attempt.segments[name.table] = segment
    begins: dict[int, float] = {}
    for attempt in reversed(grouped.values()):
        attempt.end = begins.get(attempt.rank, inf)
        begins[attempt.rank] = min(attempt.end, attempt.start)
    return list(grouped.values())


# ------------------------------------------------------------------ what is lost


def _lost(attempt: _Attempt) -> Iterator[tuple[float, str]]:
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


def _gone(found: Mapping[Name, Segment]) -> Iterator[tuple[float, str]]:
    """Yield what a later attempt of a process saw of earlier ones, and is not there."""
    sizes = {str(name): segment.size for name, segment in found.items()}
    seen = {name: size for segment in found.values() for name, size in segment.before.items()}
    for name, size in seen.items():
        if sizes.get(name, 0) < size:
            left = next((max(s.steps) + 1 for other, s in found.items() if str(other) == name and s.steps), -inf)
            yield left, f"segments/{name}.arrows is shorter than it was, or missing."


# ------------------------------------------------------------------ which rows count


def _rows(attempts: list[_Attempt], table: str, only: Collection[str] | None) -> pd.DataFrame | None:
    """Return a table's rows, with a column ``rank_``: of each attempt up to where the process' next one begins."""
    schema = arrow_schema(table)
    if only is not None:
        schema = pa.schema([column for column in schema if column.name in only])
    by_step = "step" in schema.names
    latest = {a.rank: a for a in attempts if table in a.segments and a.segments[table].rows is not None}
    parts = []
    for attempt in attempts:
        stored = attempt.segments[table].rows if table in attempt.segments else None
        if stored is None or (not by_step and latest[attempt.rank] is not attempt):
            continue
        rows = _as_today(stored.replace_schema_metadata(), schema)
        if by_step and attempt.end < inf:
            rows = rows.filter(pc.less(rows["step"], int(attempt.end)))
        parts.append(rows.append_column("rank_", pa.repeat(pa.scalar(attempt.rank, pa.int64()), len(rows))))
    frame: pd.DataFrame | None = pa.concat_tables(parts).to_pandas(maps_as_pydicts=None) if parts else None
    return frame


def _as_today(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with the columns that were added since they were written."""
    for column in schema:
        if column.name not in rows.schema.names:
            rows = rows.append_column(column, pa.repeat(pa.scalar(ADDED[column.name], column.type), len(rows)))
    return rows.select(schema.names)


def _whole(frames: Mapping[str, pd.DataFrame], attempts: list[_Attempt], bound: float) -> dict[str, pd.DataFrame]:
    """Return the rows of whole steps: those that every process has counted, and of which nothing is lost."""
    tables = dict(frames)
    steps = frames.get("steps")
    if steps is not None:
        # Of an evaluation between recorded steps one process may know alone.
        recorded = steps[steps["seconds"].notna()] if steps["rank_"].nunique() > 1 else steps
        last = _last_whole(recorded, attempts)
        for table in BY_STEP:
            if table in frames:
                rows = frames[table]
                whole = rows["step"] <= last
                counts = (
                    whole | rows["seconds"].isna() if table == "steps" else whole & rows["step"].isin(recorded["step"])
                )
                tables[table] = rows[counts]
    for table, rows in tables.items():
        kept = rows[rows["step"] < bound] if "step" in rows else rows
        tables[table] = kept.drop(columns="rank_").reset_index(drop=True)
    return tables


def _last_whole(recorded: pd.DataFrame, attempts: list[_Attempt]) -> float:
    """Return the last step that every process has counted, of those that took part in the last attempt."""
    began = {a.rank: a.start for a in attempts if a.start < inf}
    counted = recorded.groupby("rank_")["step"].max()
    reached = {rank: float(counted.get(rank, start - 1)) for rank, start in began.items()}
    latest = min(next((a.start for a in reversed(attempts) if a.start < inf), inf), max(reached.values(), default=inf))
    return min((step for rank, step in reached.items() if max(step, began[rank]) >= latest), default=inf)


def expanded(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows with what the user passed in columns, where there is such."""
    return expand_extra(frame) if "extra" in frame else frame


def expand_extra(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn the map of user scalars into columns."""
    extra = pd.DataFrame([dict(pairs or ()) for pairs in frame.pop("extra")], index=frame.index, dtype="float64")
    return pd.concat([frame, extra], axis=1)
