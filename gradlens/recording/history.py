"""From segments to tables: which rows count.

Every process has attempts; an attempt that starts at step s replaces the process' earlier rows from s on. A step
counts when every process has counted it, which its row of ``steps``, written last, does. That row tells which rows of
the other tables belong to it: a segment that lacks them was damaged; the recording then ends before that step, and says
so.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gradlens.errors import RecordingError
from gradlens.recording.attempts import BY_STEP, Attempt, read_attempts
from gradlens.recording.derive import merge
from gradlens.recording.folder import arrow_schema
from gradlens.recording.schema import ADDED, TABLES
from gradlens.recording.thinned import Thinned, firsts


@dataclass(frozen=True)
class History:
    """What the segments of a run hold.

    Attributes:
        tables: stored tables, merged; one without rows is left out.
        ranks: processes that wrote rows.
        damage: a sentence for each damage that was found.
        thinned: ``before`` which step it was thinned, and how many steps a ``span`` has, of which the first is left;
            empty where nothing was.
    """

    tables: dict[str, pd.DataFrame]
    ranks: int
    damage: list[str]
    thinned: dict[str, int]


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
    read = read_attempts(folder, run)
    attempts, damage, bound = read.attempts, read.damage, read.bound
    frames = {table: frame for table in TABLES if (frame := _rows(attempts, table, only.get(table))) is not None}
    tables = _whole(frames, attempts, bound)
    if damage and not len(tables.get("steps", ())):
        raise RecordingError(
            f"No step of the run at {folder} is whole: {' '.join(damage[:2])} Restore it from a copy of the folder."
        )
    if bound < inf:
        damage.append(f"Steps from {bound:.0f} on are left out.")
    tables = {table: merge(table, expanded(frame)) for table, frame in tables.items()}
    ranks = {attempt.rank for attempt in attempts if any(s.rows is not None for s in attempt.segments.values())}
    return History(tables, len(ranks), damage, said(read.thinned.values()))


def said(thinned: Collection[Thinned]) -> dict[str, int]:
    """Return what the manifest says of what was thinned; nothing where nothing was."""
    span = max((one.span for one in thinned), default=1)
    return {"before": max(one.before for one in thinned), "span": span} if span > 1 else {}


# ------------------------------------------------------------------ which rows count


def _rows(attempts: list[Attempt], table: str, only: Collection[str] | None) -> pd.DataFrame | None:
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
        rows = as_today(stored.replace_schema_metadata(), schema)
        if by_step and attempt.end < inf:
            rows = rows.filter(pc.less(rows["step"], int(attempt.end)))
        parts.append(rows.append_column("rank_", pa.repeat(pa.scalar(attempt.rank, pa.int64()), len(rows))))
    frame: pd.DataFrame | None = pa.concat_tables(parts).to_pandas(maps_as_pydicts=None) if parts else None
    return frame


def as_today(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with the columns that were added since they were written."""
    for column in schema:
        if column.name not in rows.schema.names:
            rows = rows.append_column(column, pa.repeat(pa.scalar(ADDED[column.name], column.type), len(rows)))
    return rows.select(schema.names)


def _whole(frames: Mapping[str, pd.DataFrame], attempts: list[Attempt], bound: float) -> dict[str, pd.DataFrame]:
    """Return the rows of whole steps: those that every process has counted, and of which nothing is lost."""
    tables = dict(frames)
    steps = frames.get("steps")
    if steps is not None:
        # Of an evaluation between recorded steps one process may know alone.
        recorded = steps[steps["seconds"].notna()] if steps["rank_"].nunique() > 1 else steps
        last = _last_whole(recorded, attempts)
        recorded = recorded[_stays(recorded["step"].to_numpy(), attempts)]
        for table in BY_STEP:
            if table in frames:
                rows = frames[table]
                counts = (rows["step"] <= last) & rows["step"].isin(recorded["step"])
                tables[table] = rows[counts | rows["seconds"].isna() if table == "steps" else counts]
    for table, rows in tables.items():
        kept = rows[rows["step"] < bound] if "step" in rows else rows
        tables[table] = kept.drop(columns="rank_").reset_index(drop=True)
    return tables


def _stays(steps: np.ndarray, attempts: list[Attempt]) -> np.ndarray:
    """Whether steps are left when all processes have thinned as far as the first one: some may not have yet."""
    thinned = [attempt.thinned for attempt in attempts if attempt.thinned is not None]
    found = np.ones(len(steps), dtype=bool)
    if thinned and len({attempt.rank for attempt in attempts}) > 1:
        old = np.unique(steps[steps < max(one.before for one in thinned)])
        left = old[firsts(old, max(one.span for one in thinned))]
        found = ~np.isin(steps, old) | np.isin(steps, left)
    return found


def _last_whole(recorded: pd.DataFrame, attempts: list[Attempt]) -> float:
    """Return the last step that every process has counted, of those that took part in the last attempt."""
    starts: dict[tuple[int, int], float] = {}
    for attempt in attempts:
        key = attempt.number, attempt.rank
        starts[key] = min(starts.get(key, inf), attempt.began)
    starts = {key: start for key, start in sorted(starts.items()) if start < inf}
    began = {rank: start for (_, rank), start in starts.items()}
    counted = recorded.groupby("rank_")["step"].max()
    reached = {rank: float(counted.get(rank, start - 1)) for rank, start in began.items()}
    latest = min(next(reversed(starts.values()), inf), max(reached.values(), default=inf))
    return min((step for rank, step in reached.items() if max(step, began[rank]) >= latest), default=inf)


def expanded(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows with what the user passed in columns, where there is such."""
    return expand_extra(frame) if "extra" in frame else frame


def expand_extra(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn the map of user scalars into columns."""
    extra = pd.DataFrame([dict(pairs or ()) for pairs in frame.pop("extra")], index=frame.index, dtype="float64")
    return pd.concat([frame, extra], axis=1)
