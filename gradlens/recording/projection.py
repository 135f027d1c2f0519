"""Reading some columns of a large table, a batch of rows at a time: what they are made of is never all in memory."""

from collections.abc import Collection

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gradlens.recording import derive

#: Rows of a batch.
_ROWS = 1 << 14


def read_columns(file: pq.ParquetFile, table: str, only: Collection[str]) -> pd.DataFrame | None:
    """Read public columns of a closed run's table, and those that tell its rows apart.

    Args:
        file: the table's.
        table: its name.
        only: the public columns.

    Returns:
        The rows; None where they can be derived only after rows were merged: of several processes, or of one key.

    Raises:
        pa.ArrowException: it is no whole Parquet file.
    """
    stored = [name for name in file.schema_arrow.names if name in derive.sources(table, only)]
    numbers: dict[str, np.ndarray] = {}
    others: dict[str, list[pd.Series]] = {}
    order: list[str] = []
    at = 0
    for batch in file.iter_batches(_ROWS, columns=stored):
        batch.validate(full=True)
        derived = derive.derived(table, batch.to_pandas(), only)
        order = list(derived)
        for name, values in derived.items():
            if not isinstance(values.dtype, np.dtype) or values.dtype.kind not in "fi":
                others.setdefault(name, []).append(values)
                continue
            if name not in numbers:
                numbers[name] = np.empty(file.metadata.num_rows, values.dtype)
            column = numbers[name]
            if column.dtype != values.dtype:
                return None  # whole numbers of which some are missing
            column[at : at + len(values)] = values
        at += len(batch)
    if at == 0:
        return None
    pa.default_memory_pool().release_unused()  # which Arrow keeps of the batches, for others that may come
    columns = numbers | {name: pd.concat(parts, ignore_index=True) for name, parts in others.items()}
    rows = pd.DataFrame({name: columns[name] for name in order}, copy=False)
    several = "rank" in rows and rows["rank"].nunique() > 1
    return None if several or derive.repeated(rows, derive.keys(table)) else rows
