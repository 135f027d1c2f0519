"""The tables of ``parting`` that are read: which places are the same, which settings differ, ratios by block."""

import pandas as pd

from analyses.tables import number, pick, span

_MOST = 30


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the small tables, as far as there is something in them.

    Args:
        table: of ``compute``.
    """
    shown = {
        "Settings in which the two runs differ.": _settings(table),
        "Parameters, sites and weights that are not the same by name.": _names(table),
        "Gradient norm at the end, the second run's over the first's.": _ratios(table),
        "The first places at which two implementations differ.": _places(table),
    }
    return {caption: _cut(rows) for caption, rows in shown.items() if len(rows)}


def _cut(rows: pd.DataFrame) -> pd.DataFrame:
    if len(rows) <= _MOST:
        return rows.reset_index(drop=True)
    rest = pd.DataFrame([dict.fromkeys(rows, "") | {rows.columns[0]: f"and {len(rows) - _MOST} more"}])
    return pd.concat([rows.head(_MOST), rest], ignore_index=True)


def _settings(table: pd.DataFrame) -> pd.DataFrame:
    rows = pick(table, quantity="setting")
    return pd.DataFrame({"setting": rows["group"], "first": rows["stack"], "second": rows["unit"]})


def _names(table: pd.DataFrame) -> pd.DataFrame:
    changes = tuple(
        f"{what} {how}" for what in ("parameter", "site", "weights") for how in ("renamed", "removed", "added")
    )
    rows = table[table["quantity"].isin(changes)]
    return pd.DataFrame({"change": rows["quantity"], "name": rows["group"], "now": rows["stack"]})


def _ratios(table: pd.DataFrame) -> pd.DataFrame:
    rows = table[table["quantity"].isin(["gradient ratio", "block ratio"])]
    told = [f"{number(row['value'])}{span(row, without='')}" for _, row in rows.iterrows()]
    return pd.DataFrame({"of": rows["group"].to_list(), "ratio": told})


def _places(table: pd.DataFrame) -> pd.DataFrame:
    rows = pick(table, quantity="differs")
    told = [f"{number(value)} of its norm" for value in rows["value"]]
    return pd.DataFrame({"place": rows["group"].to_list(), "of it": rows["stack"].to_list(), "difference": told})
