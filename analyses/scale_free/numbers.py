"""All numbers of ``scale_free``: which weights, how far a step turns them, their gradient and their size over steps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.intervals import block_bootstrap_interval
from analyses.scale_free.decay import Setting, setting_of
from analyses.scale_free.free import free
from analyses.steps import SMOOTHED_FROM, envelope, smoothed
from analyses.tables import SUMMARY, identity, tidy
from gradlens.analysis.ending import at_the_end
from gradlens.recording import Recording

#: The panels of the figure.
TURN, SIZES = "turn", "sizes"
#: Rows of a printed table, by name; the numbers of parameters stand behind blocks' numbers.
TABLE = "parameters"


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return which weights have no scale, what a step turns them by beside its equilibrium, gradient and size.

    Args:
        recordings: of any kind; of initialization only which weights.
    """
    return tidy(identity(run) | row for run in recordings for row in _rows(run))


def _rows(run: Recording) -> Iterator[dict[str, Any]]:
    found = free(run.params)
    if found.empty:
        return
    alone = found[found["free"]]
    yield {"panel": SUMMARY, "quantity": "free", "value": len(alone), "high": len(found), "n": found["n"].max()}
    yield {"panel": SUMMARY, "quantity": "free together", "value": found["joint"].sum(), "n": found["n"].max()}
    yield from _table(found[found["free"] | found["joint"]], run)
    if run.meta.get("kind") != "init" and len(alone):
        yield from _Course(run, list(alone.index)).rows()


def _table(found: pd.DataFrame, run: Recording) -> Iterator[dict[str, Any]]:
    """Yield the cosines of parameters that are called alike but for numbers, and what a probe says of them."""
    kind = _alike(found.index.to_series())
    for name, rows in found.groupby(kind, sort=False):
        yield {"panel": TABLE, "group": name, "quantity": "cosine", "value": rows["cosine"].max(), "n": len(rows),
               "unit": "alone" if rows["free"].all() else "with its module"}  # fmt: skip
    probed = run.probes[(run.probes["probe"] == "scale_free") & (run.probes["site"] != "")]
    parts = [str(name).partition(": ") for name in probed["name"]]
    names = _alike(
        probed["site"].astype(str) + "." + pd.Series([leaf for leaf, _, _ in parts], probed.index, dtype=str)
    )
    what = pd.Series([what for _, _, what in parts], probed.index, dtype=str)
    for (name, quantity), values in probed["value"].groupby([names, what], sort=False):
        if quantity != "whole":
            yield {"panel": TABLE, "group": name, "quantity": quantity, "value": values.max(), "n": len(values)}


def _alike(names: pd.Series) -> pd.Series:
    # A number right before the parameter's own name is no block's, but a place in a sequence of unlike modules.
    return names.astype(str).str.replace(r"\b\d+(?=\.[^.]+\.)", "#", regex=True)


class _Course:
    """The recorded steps of weights without a scale: a row a step, a column a weight.

    Args:
        run: of training.
        names: of the weights.
    """

    def __init__(self, run: Recording, names: list[str]) -> None:
        params = run.params[run.params["name"].isin(names)].drop_duplicates(["step", "name"], keep="last")
        params = params.assign(turn=(params["update_norm"] / params["weight_norm"]).fillna(params["update_ratio"]))
        wide = params.pivot(index="step", columns="name", values=["weight_norm", "grad_norm", "turn"]).sort_index()
        self.size, self.gradient, self.turn = (
            pd.DataFrame(wide[of])[names] for of in ("weight_norm", "grad_norm", "turn")
        )
        steps = run.steps.drop_duplicates("step").set_index("step").reindex(self.size.index)
        self.rate = steps["lr"].ffill().bfill()
        self._clip = steps["clip_coef"].fillna(1.0)
        settings = setting_of(run)
        self._settings = [settings.get(name) or settings.get("") for name in names]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield panels, summary and table."""
        known = [setting for setting in self._settings if setting is not None]
        yield {"panel": SUMMARY, "quantity": "optimizer", "group": known[0].optimizer if known else "",
               "value": max((setting.decay for setting in known), default=math.nan),
               "high": sum(setting.steps is not None for setting in known)}  # fmt: skip
        yield from self._equilibrium()
        logs = pd.DataFrame(np.log(self.size.where(self.size > 0)))
        size = np.exp((logs - logs.bfill().iloc[0]).mean(axis=1))
        norm = (self.gradient**2).sum(axis=1).pow(0.5)
        yield {"panel": SUMMARY, "quantity": "grew", "value": size.iloc[-1], "x": size.index[-1], "n": len(size)}
        if (norm > 0).any():
            over = norm[norm > 0] / norm[norm > 0].iloc[0]
            yield from _curve(SIZES, "gradient", smoothed(over, geometric=True))
            yield from _curve(SIZES, "size alone", 1 / size)
            yield from self._rise(over, logs)
        yield from _curve(SIZES, "size", size)

    def _of(self, what: str) -> pd.DataFrame:
        """Return a number of theory, of every step and weight; missing where it has none."""
        each = {of: [_theory(of, what, rate) for rate in self.rate] for of in set(self._settings)}
        columns = {name: each[of] for name, of in zip(self.size, self._settings, strict=True)}
        return pd.DataFrame(columns, self.size.index)

    def _equilibrium(self) -> Iterator[dict[str, Any]]:
        expected, turn = self._of("rotation"), self._turn()
        ratios = {"ratio": self.gradient / self.size, "ratio in equilibrium": self._of("gradient")}
        ends = {"turn": turn, "equilibrium": expected, **ratios}
        for quantity, values in (("turn", turn), ("equilibrium", expected)):
            median = values.median(axis=1)
            yield from _curve(TURN, quantity, smoothed(median[median > 0]))
        names = self.size.columns.to_series()
        for kind, of in names.groupby(_alike(names), sort=False):
            yield from ({"panel": TABLE, "group": kind, **row} for row in self._last(list(of), ends))
        times = (turn / expected.where(expected > 0)).where(turn > 0)
        # While the rate is near its largest: what a schedule ends with, weights have no time to follow.
        main = self.rate >= self.rate.max() / 2
        log = times[main].median(axis=1).dropna().map(math.log)
        if log.empty:
            return
        end, share = at_the_end(log), self._of("relaxation").median(axis=1).clip(upper=1)
        passed = share[share.index <= log.index[-1]]
        mean = block_bootstrap_interval(end).mapped(math.exp)
        yield {"panel": SUMMARY, "quantity": "turn over equilibrium", **mean.row(), "x": end.index[-1]}
        yield {"panel": SUMMARY, "quantity": "times to equilibrium", "x": 1 / share[end.index].mean(),
               "value": float(np.trapezoid(passed, passed.index)), "n": len(log)}  # fmt: skip
        yield {"panel": SUMMARY, "quantity": "equilibrium", "value": expected.loc[end.index].median(axis=1).mean()}

    def _turn(self) -> pd.DataFrame:
        """Return what a step turns each weight by; of SGD without recorded updates what its gradients make of it."""
        made = {}
        for name, setting in zip(self.size, self._settings, strict=True):
            made[name] = pd.Series(np.nan, self.size.index)
            if setting is not None and setting.steps is not None and not setting.steps.scaled:
                each = setting.factor * setting.steps.total * math.sqrt(setting.steps.spread)
                made[name] = each * self.rate * self._clip * self.gradient[name] / self.size[name]
        taken: pd.DataFrame = self.turn.fillna(pd.DataFrame(made))
        return taken

    def _last(self, names: list[str], ends: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
        """Yield the last size and effective rate of weights that are alike, and the ends of other numbers."""
        setting = self._settings[list(self.size).index(names[0])]
        size = self.size[names].median(axis=1).dropna()
        yield {"quantity": "size", "value": size.iloc[-1]}
        steps = None if setting is None else setting.steps
        scaled = steps is None or steps.scaled
        if setting is not None and steps is not None and self.rate.notna().any():
            rate = self.rate.loc[size.index[-1]] * setting.factor * steps.total
            yield {"quantity": "effective rate", "value": rate / size.iloc[-1] ** (1 if scaled else 2)}
        for quantity, values in ends.items():
            end = at_the_end(values[names].median(axis=1).dropna())
            if len(end) and not (scaled and quantity.startswith("ratio")):  # only of gradients as they are
                yield {"quantity": quantity, "value": end.mean()}

    def _rise(self, norm: pd.Series, logs: pd.DataFrame) -> Iterator[dict[str, Any]]:
        """Yield by how much the gradient has risen at the end from its least behind the largest rate.

        And by how much it would have by the weights' size alone, each counted by its part of the energy at the end.
        """
        begin = self.rate.idxmax() if self.rate.notna().any() else norm.index[0]
        late = smoothed(norm, geometric=True)
        late = late[late.index >= begin]
        if len(late) < SMOOTHED_FROM:
            return
        least: Any = late.idxmin()
        raw = at_the_end(norm)
        part = self.gradient.loc[raw.index].pow(2).mean()
        shrunk: pd.Series[float] = logs.loc[least] - logs.loc[raw.index].mean()
        alone = math.exp(float((part * shrunk).sum() / part.sum()))
        mean = block_bootstrap_interval((raw / late.loc[least]).map(math.log)).mapped(math.exp)
        yield {"panel": SUMMARY, "quantity": "rise", **mean.row(), "x": least}
        yield {"panel": SUMMARY, "quantity": "rise by size", "value": alone, "n": len(raw)}
        yield {"panel": SUMMARY, "quantity": "begin", "x": norm.index[0]}


def _theory(setting: Setting | None, what: str, rate: float) -> float:
    if setting is None or setting.steps is None or not setting.decay > 0 or math.isnan(rate):
        return math.nan
    return float(getattr(setting.steps, what)(rate * setting.factor, setting.decay))


def _curve(panel: str, quantity: str, series: pd.Series) -> Iterator[dict[str, Any]]:
    series = envelope(series.dropna())
    if len(series):
        yield {"panel": panel, "quantity": quantity, "x": series.index.to_numpy(dtype=float),
               "value": series.to_numpy(dtype=float)}  # fmt: skip
