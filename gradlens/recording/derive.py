"""From merged sums to what a reader sees: shares, norms, means and variances. Pure functions on DataFrames."""

from typing import Any

import numpy as np
import pandas as pd

from gradlens.recording.schema import GRADIENT_SQUARES, PUBLIC, STORED, Column, names

_PANDAS = {"string": "str", "int": "int64", "float": "float64", "bool": "bool"}


def empty(columns: tuple[Column, ...]) -> pd.DataFrame:
    """Return a table without rows whose columns have the right types."""
    return pd.DataFrame({c.name: pd.Series(dtype=_PANDAS[c.dtype]) for c in columns})


def merge(table: str, stored: pd.DataFrame) -> pd.DataFrame:
    """Merge stored rows that share all key columns: sums add, maxima take the larger, of the rest the last counts.

    Args:
        table: name of the table.
        stored: stored columns; of numbers that the user added the mean is taken.

    Returns:
        One row a key, in order of first appearance.
    """
    keys = [c.name for c in STORED[table] if c.merge == "key"]
    if not stored.duplicated(keys).any():
        return stored
    how: dict[str, Any] = {
        "sum": lambda s: s.sum(min_count=1),
        "norm": lambda s: np.sqrt(s.pow(2).sum(min_count=1)),
        "max": "max",
        "mean": "mean",
        "same": "last",
    }
    rules: dict[Any, Any] = {c.name: how[c.merge] for c in STORED[table] if c.merge != "key"}
    rules |= {name: "mean" for name in stored.columns if name not in rules and name not in keys}
    return stored.groupby(keys, sort=False, dropna=False).agg(rules).reset_index()[list(stored.columns)]


def over_processes(table: str, stored: pd.DataFrame, data: int) -> pd.DataFrame:
    """Merge the rows of all processes: one row a call, as one process that got all the data would have written it.

    Args:
        table: ``"norms"`` or ``"activations"``.
        stored: stored columns.
        data: processes that divide the data; the loss that is trained is the mean over them, so the gradient of each
            process's own is that many times as large.
    """
    merged = merge(table, stored.assign(rank=0))
    squares = [name for name in GRADIENT_SQUARES if name in merged]
    return merged.assign(**{name: merged[name] / data**2 for name in squares})


def _ratio(top: pd.Series, bottom: pd.Series) -> pd.Series:
    """Divide, with a missing value where there is nothing to divide by."""
    return top / bottom.where(bottom > 0)


def norms(stored: pd.DataFrame) -> pd.DataFrame:
    """Return the public ``norms`` table of merged sums (design: the three shares sum to one)."""
    s, out = stored, stored[["step", "site", "call", "rank", "vectors", "width"]].copy()
    arrived = s["n_grad_output"] > 0
    comparable = arrived & (s["n_grad_input"] == s["n_grad_output"])
    energy = s["energy_g"].where(arrived)
    out["recentering"] = _ratio(s["energy_recentering"], energy)
    out["kept"] = _ratio(s["energy_kept"].where(comparable), energy)
    out["rescaling"] = 1.0 - out["recentering"] - out["kept"]
    out["mean_share"] = _ratio(s["energy_mean"], energy)
    out["inv_sigma"] = _ratio(s["inv_sigma"], s["n_input"])
    out["grad_output_norm"] = np.sqrt(s["energy_grad_output"].where(arrived))
    out["grad_input_norm"] = np.sqrt(s["energy_grad_input"].where(s["n_grad_input"] > 0))
    out["backward_gain"] = _ratio(out["grad_input_norm"], out["grad_output_norm"])
    for name, count in (("detached", "n_grad_output"), ("actual", "n_grad_input")):
        for moment in ("mean2", "var"):
            out[f"{moment}_{name}"] = _ratio(s[f"{moment}_{name}"], s[count])
    out["nonfinite"] = (s["vectors"] - s["n_input"]).astype("int64")
    return out[names(PUBLIC["norms"])]


def activations(stored: pd.DataFrame) -> pd.DataFrame:
    """Return the public ``activations`` table of merged sums."""
    out = stored[["step", "site", "call", "rank", "tensor"]].copy()
    entries = (stored["n"] * stored["width"]).astype("float64")
    out["mean"] = _ratio(stored["total"], entries)
    out["rms"] = np.sqrt(_ratio(stored["squares"], entries))
    out["absmax"] = stored["absmax"].where(stored["n"] > 0)
    out["nonfinite"] = (stored["vectors"] - stored["n"]).astype("int64")
    out["numel"] = (stored["vectors"] * stored["width"]).astype("int64")
    return out


def params(stored: pd.DataFrame) -> pd.DataFrame:
    """Return the public ``params`` table of stored squares."""
    out = stored[["step", "name", "numel"]].copy()
    out["grad_norm"] = np.sqrt(stored["grad_squares"])
    out["grad_absmax"] = stored["grad_absmax"]
    out["weight_norm"] = np.sqrt(stored["weight_squares"])
    out["update_norm"] = np.sqrt(stored["update_squares"])
    out["nonfinite"] = stored["nonfinite"]
    return out


def steps(stored: pd.DataFrame) -> pd.DataFrame:
    """Return the public ``steps`` table; a mean over processes of which one has a NaN is none."""
    # Recordings of an earlier gradlens do not say it.
    nan_loss = stored["nan_loss"].eq(True) if "nan_loss" in stored else pd.Series(False, stored.index)
    out = stored.assign(loss=stored["loss"].mask(nan_loss), nan_loss=nan_loss)
    wanted = names(PUBLIC["steps"])
    return out[wanted + [name for name in out.columns if name not in wanted]]


#: Stored to public, a function a table; tables that are not named here are public as they are stored.
DERIVE = {"norms": norms, "activations": activations, "params": params, "steps": steps}


def public(table: str, stored: pd.DataFrame) -> pd.DataFrame:
    """Merge stored rows and derive the public table."""
    if stored.empty:
        return empty(PUBLIC[table])
    merged = merge(table, stored)
    derived = DERIVE[table](merged) if table in DERIVE else merged
    return derived.reset_index(drop=True)
