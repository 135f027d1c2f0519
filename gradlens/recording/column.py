"""What a column of a recording is: its type, unit and meaning, and how rows merge; short words to write them with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import pandas as pd

DType = Literal["string", "int", "float", "bool"]
#: Rows of one key: sums add, a norm is the root of the sum of squares, of numbers that each process has its own of the
#: mean is taken; of what is told of a site the last counts that is known; the rest agree.
Merge = Literal["key", "sum", "norm", "min", "max", "mean", "told", "same"]
#: From stored rows, merged, to a public column.
Formula: TypeAlias = Callable[[pd.DataFrame], pd.Series]


@dataclass(frozen=True)
class Column:
    """One column: its type, unit, meaning; of a stored one how two rows merge, of a public one how it is derived.

    Without a formula a public column is the stored one of its name.
    """

    name: str
    dtype: DType
    meaning: str
    unit: str = ""
    merge: Merge = "same"
    formula: Formula | None = None


def key(name: str, dtype: DType, meaning: str) -> Column:
    """Return a column that rows are told apart by."""
    return Column(name, dtype, meaning, merge="key")


def summed(name: str, meaning: str, unit: str = "") -> Column:
    """Return a column of sums."""
    return Column(name, "float", meaning, unit, merge="sum")


def ratio(top: pd.Series, bottom: pd.Series) -> pd.Series:
    """Divide, with a missing value where there is nothing to divide by."""
    return top / bottom.where(bottom > 0)
