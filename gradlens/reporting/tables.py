"""Tables that are printed whole: their cells as texts, and how their columns share a line."""

from typing import Any

import pandas as pd

from gradlens.reporting.numbers import number

#: Letters from which on a cell may be broken.
_LONG_CELL = 25
#: Letters of a table's cells that a line has room for.
_LINE = 100


def printed(table: pd.DataFrame) -> dict[str, Any]:
    """Return a table's cells as they are printed, and how its long columns share the room that the others leave."""
    heads, cells = [str(c) for c in table.columns], [[number(v) for v in r] for r in table.itertuples(index=False)]
    longest = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return {
        "heads": heads,
        "numeric": [bool(pd.api.types.is_numeric_dtype(table[c])) for c in table.columns],
        "room": _room(longest, heads),
        "printed": cells,
    }


def _room(letters: list[int], heads: list[str]) -> list[int]:
    """Return the parts of the line that the long columns share, by the letters of their longest cell.

    The others, marked 0, have their own width, unless that would leave too little: then all share.
    """
    long = min(_LONG_CELL, max(letters, default=0))
    widths = [max(n, len(head)) for n, head in zip(letters, heads, strict=False)]
    own = sum(width for width, n in zip(widths, letters, strict=False) if n < long)
    all_share = sum(widths) > _LINE and own > _LINE / 2
    # Where all share, a head may be broken between its words, and nowhere else.
    words = [max(map(len, head.split()), default=0) for head in heads]
    parts = [max(pair) for pair in zip(letters, words, strict=False)] if all_share else letters
    return [min(part, 4 * _LONG_CELL) if n >= long or all_share else 0 for n, part in zip(letters, parts, strict=True)]
