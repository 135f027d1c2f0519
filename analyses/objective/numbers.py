"""What the gradient at the output tells of the loss, and what went in: the numbers that the findings judge."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analyses.intervals import block_bootstrap_interval
from analyses.limits import limit
from analyses.objective import mixed
from analyses.objective.front import normalized
from analyses.tables import identity, tidy
from gradlens.analysis.ending import at_the_end, span_of_steps
from gradlens.recording import Recording

#: A share of rows (or a weight) this near to 1 is 1, in half precision.
ALL = 0.98
#: Steps whose input is the usual one.
_FIRST = 9
#: Steps on each side of one at which a loss may have risen.
_WINDOW = 5


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the numbers judged, a quantity a row; of the module ``stack`` that was called, empty for the model itself.

    Args:
        recordings: those that are not of kind ``init`` are used.
    """
    runs = [r for r in recordings if r.meta.get("kind") != "init"]
    return tidy({**identity(run), "panel": "summary", **row} for run in runs for row in _rows(run))


def _rows(run: Recording) -> Iterator[dict[str, Any]]:
    outputs = run.outputs
    audit = run.meta.get("audit") or {}
    setting: Mapping[str, Any] = audit.get("setting") or {}
    compiled = "compiled" if setting.get("compiled") else ""
    yield {"quantity": "recorded", "group": compiled, "value": outputs["step"].nunique()}
    if "older" in setting:
        yield {"quantity": "not zeroed", "value": setting["older"], "n": setting.get("older_of", audit.get("steps", 0))}
        alive = set(run.params.loc[run.params["grad_norm"] > 0, "name"])
        for quantity, told in (("not zeroed in", "older_in"), ("zeroed in", "zeroed_in")):
            for name in sorted(alive & (setting.get(told) or {}).keys()):
                yield {"quantity": quantity, "group": name, "value": setting[told][name]}
    for site, own in outputs.groupby("site", sort=False):
        steps = own.set_index("step").sort_index()
        for rows in (_weight(steps), _sign(steps), _twice(steps), _labels(steps, run), _input(steps, run),
                     mixed.numbers(steps, run)):  # fmt: skip
            yield from ({"stack": str(site), **row} for row in rows)


def _weight(steps: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the usual weight of a row, and what it is beside the rows of a pass and of a sample."""
    yield {"quantity": "passes", "value": steps["passes"].sum()}
    yield {"quantity": "passes a step", "value": steps["passes"].median()}
    known = steps[steps["row_weight"].notna()]
    if known.empty:
        return
    weight = known["row_weight"].abs()
    yield {"quantity": "kind", "group": known["kind"].astype(str).mode().iloc[0], "n": len(known)}
    low, middle, high = weight.quantile([0.025, 0.5, 0.975])
    yield {"quantity": "row weight", "group": span_of_steps(weight), "value": middle, "low": low, "high": high,
           "n": len(known)}  # fmt: skip
    single = known["single_weight"].abs()
    yield {"quantity": "weight of one row", "value": single.median()}
    yield {"quantity": "weight in a sample", "value": (single * known["samples"] / known["passes"]).median()}
    of_sample = (known["vectors"] / known["samples"] * (1 - known["ignored"].fillna(0))).median()
    yield {"quantity": "rows in a sample", "value": of_sample}


def _sign(steps: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the share of steps in which the loss of the very labels is maximized, and its change."""
    known = steps[steps["row_weight"].notna()]
    if known.empty:
        return
    up = known["row_weight"] < 0
    yield {"quantity": "maximized", "value": up.mean(), "x": up.idxmax() if up.any() else np.nan, "n": len(up)}
    loss = known.loc[np.isfinite(known["sampled_loss"]), "sampled_loss"]
    if len(loss) > 1:
        few = max(1, min(5, len(loss) // 4))
        yield {"quantity": "change of the loss", "value": loss.tail(few).mean() - loss.head(few).mean(), "n": len(loss)}


def _twice(steps: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the share of steps in which softmax was taken twice, of those that can tell."""
    known = steps[(steps["kind"] != "") & (steps["fitted"] >= ALL)]
    if known.empty:
        return
    probable = (known["probabilities"] >= ALL) & (known["kind"] == "softmax")
    outside = known["kind"] == "twice"
    twice = probable | outside
    where = "output" if probable.sum() >= outside.sum() else "loss"
    first = twice.idxmax() if twice.any() else np.nan
    yield {"quantity": "softmax twice", "group": where, "value": twice.mean(), "x": first, "n": len(known)}


def _labels(steps: pd.DataFrame, run: Recording) -> Iterator[dict[str, Any]]:
    """Yield the labels' entropy and the model's loss on them at the end, and how much of it is known."""
    known = steps[(steps["labels"] > 0) & (steps["kind"] != "twice") & np.isfinite(steps["sampled_loss"])]
    if known.empty:
        return
    end = known.loc[at_the_end(known["labels"]).index]
    weights = end["labels"] / end["labels"].mean()
    entropy, loss = end["label_nats"] * weights, end["sampled_loss"] * weights
    ratio = block_bootstrap_interval((loss - entropy) / entropy.mean()).mapped(lambda part: 1 + part)
    before = float(known.loc[known.index < end.index[0], "labels"].sum())
    # Of labels that are all the same the code length is not 0 either, while they are few beside the classes.
    seen = known["labels"].cumsum() - known["labels"]
    least = -np.log((seen + 0.5) / (seen + known["classes"] / 2))[end.index]
    yield {"quantity": "entropy of the labels", "group": span_of_steps(loss), "value": entropy.mean(), "n": before,
           "low": (entropy - least * weights).mean()}  # fmt: skip
    # Not every recorded step is looked at.
    recorded = int((run.steps["step"] <= known.index[-1]).sum())
    yield {"quantity": "loss on them", "value": loss.mean(), "n": max(recorded, len(known))}
    yield {"quantity": "loss over entropy", **ratio.row(), "x": _lost(known, entropy.mean())}
    yield {"quantity": "labels a class", "value": before / max(2.0, known["classes"].median())}
    yield {"quantity": "moved", "value": _moved(run.params)}


def _lost(known: pd.DataFrame, entropy: float) -> float:
    """Return the step at which a loss rose to the labels' entropy from well below it; missing where it did not."""
    # A step's labels may be few of a kind, and those of the first steps are not foretold well.
    shares: pd.Series[float] = known["sampled_loss"] / np.minimum(known["label_nats"], entropy)
    medians: pd.Series[float] = shares.rolling(_WINDOW).median()
    before, behind = medians.shift(), medians.shift(1 - _WINDOW)
    rose = (before <= limit("GL704", "read")) & (behind >= limit("GL704", "most"))
    if not rose.any():
        return np.nan
    # Medians rise some steps around it alike: it is where the loss itself rises most.
    around = int((behind - before).where(rose, -np.inf).to_numpy().argmax())
    single = shares.diff().iloc[around - _WINDOW // 2 : around + _WINDOW // 2 + 1]
    return float(single.index.to_numpy()[int(single.to_numpy().argmax())])


def _moved(params: pd.DataFrame) -> float:
    """Return how far all weights together have moved, over their size: by their norm, or the sum of their updates."""
    squares = (params[["weight_norm", "update_norm"]] ** 2).groupby(params["step"]).sum(min_count=1)
    size, updates = squares["weight_norm"].pow(0.5), squares["update_norm"].pow(0.5)
    if not (size > 0).any():
        return np.nan
    ratios = [size.max() / size[size > 0].min() - 1, (updates / size.where(size > 0)).sum()]
    return float(max(ratios))


def _input(steps: pd.DataFrame, run: Recording) -> Iterator[dict[str, Any]]:
    """Yield scale and offset of the input, and the step that differs most from the first ones."""
    known = steps[steps["input_rms"].notna()]
    if known.empty:
        return
    mean, square = known["input_mean"].median(), (known["input_rms"] ** 2).median()
    spread = np.sqrt(max(0.0, square - mean**2))
    share = known["input_nonzero"].median()
    yield {"quantity": "input", "value": np.sqrt(square / share) if share > 0 else 0.0, "n": len(known)}
    offset = abs(mean) / spread if spread > limit("GL705", "rounding") * np.sqrt(square) else np.inf
    yield {"quantity": "input's offset", "value": offset if square > 0 else 0.0}
    yield {"quantity": "largest input", "value": known["input_absmax"].max()}
    yield {"quantity": "input is normalized", "group": normalized(run)}
    times = known["input_rms"] / known["input_rms"].head(_FIRST).median()
    odd = (times >= limit("GL705", "odd")) | (times <= 1 / limit("GL705", "odd"))
    if odd.any():
        how_many = f"in {odd.sum()} of {len(odd)} steps that were looked at"
        yield {"quantity": "odd input", "group": how_many, "value": times[odd].iloc[0], "x": odd.idxmax()}
