"""The one notion of a parameter without a scale: its gradient is at right angles to it in every recorded step."""

import numpy as np
import pandas as pd

from analyses.limits import limit

_NUMBERS = ["grad_weight", "gradient", "size", "numel"]


def free(params: pd.DataFrame) -> pd.DataFrame:
    """Return which parameters the loss does not feel the size of.

    |⟨g, w⟩| / ‖g‖‖w‖ is 1/√n of n entries by chance; where the size plays no part it is far below in all steps. A bias
    in front of a norm takes part: where it is not 0, only weight and bias together have no scale.

    Args:
        params: of a recording.

    Returns:
        A row a parameter that has a gradient and a size, by name in order of registration: ``cosine``, the root mean
        square over steps; ``n``, the steps; ``free``; ``joint``, whether it is so only with the others of its module.
    """
    known = params[(params["grad_norm"] > 0) & (params["weight_norm"] > 0) & params["grad_weight"].notna()]
    known = known.assign(gradient=known["grad_norm"] ** 2, size=known["weight_norm"] ** 2)
    alone = _judged(known, known["name"])
    module = known["name"].map(_module).rename("module")
    together = known.groupby([module, known["step"]], sort=False)[_NUMBERS].sum().reset_index()
    joint = _judged(together, together["module"])["free"]
    of = alone.index.to_series().map(_module)
    others = ~alone["free"].groupby(of).transform("any") & (of.groupby(of).transform("size") > 1)
    return alone.assign(joint=others & of.map(joint).fillna(False).astype(bool))


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _judged(rows: pd.DataFrame, key: pd.Series) -> pd.DataFrame:
    """Judge sums by key: a parameter, or a module."""
    squared = rows["grad_weight"] ** 2 / (rows["gradient"] * rows["size"])
    of = pd.DataFrame({"squared": squared, "numel": rows["numel"]}).groupby(key, sort=False)
    found = pd.DataFrame({"cosine": np.sqrt(of["squared"].mean()), "n": of.size(), "numel": of["numel"].max()})
    few = found["n"] < limit("GL410", "steps")
    chance = np.where(few, limit("GL410", "once"), limit("GL410", "chance")) / np.sqrt(found["numel"])
    return found.assign(free=found["cosine"] <= np.minimum(chance, limit("GL410", "cosine")))
