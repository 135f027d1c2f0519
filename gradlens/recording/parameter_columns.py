"""What is recorded of a parameter besides the norms of weight and gradient, and what is made of it."""

import numpy as np
import pandas as pd

from gradlens.recording.column import Column, ratio, summed

#: Recorded steps after which a row whose gradient was 0 in all of them counts as idle.
IDLE = 10
#: What is recorded of a parameter besides its norms, where its gradient was taken; all missing without one.
PARAMETER_SUMS: tuple[Column, ...] = (
    summed("grad_weight", "Σ grad·w", "loss"),
    summed("rows", "rows along the first dimension; missing for biases, embeddings, and where processes share rows"),
    summed("dead_rows", "those of them whose gradient is 0 (below 1e-19)"),
    summed("idle_rows", f"those for which it was in all of {IDLE} recorded steps up to this one"),
    Column("weight_least", "float", "least entry of a vector that is no bias: a norm's gain", "weight", merge="min"),
    Column("weight_most", "float", "largest entry of it", "weight", merge="max"),
    summed("weight_total", "sum of its entries", "weight"),
    summed("sampled", "entries at a fixed distance that were taken before and after the optimizer, 1,024 at most"),
    summed("sample_squares", "Σ w² over them, before", "weight²"),
    summed("change_squares", "Σ (w after − w before)² over them; missing where nobody wrote to it", "weight²"),
    summed("change_fourths", "Σ (w after − w before)⁴ over them", "weight⁴"),
    summed("active", "those of them whose gradient is not 0; missing where no optimizer has stepped"),
    summed("still", "those of the active ones that did not change"),
    summed("first_moment_squares", "Σ exp_avg² over the sampled ones, of an optimizer that keeps it", "(loss/weight)²"),
    summed("second_moment_squares", "Σ exp_avg_sq² over them", "(loss/weight)⁴"),
)  # fmt: skip


def _known(s: pd.DataFrame, name: str) -> pd.Series:
    # Recordings of an earlier gradlens do not say it.
    return s[name] if name in s else pd.Series(np.nan, s.index)


def _update_ratio(s: pd.DataFrame) -> pd.Series:
    root: pd.Series = np.sqrt(ratio(_known(s, "change_squares"), _known(s, "sample_squares")))
    return root


def _error(s: pd.DataFrame) -> pd.Series:
    """Relative standard error of the ratio of two root mean squares; weights are spread as normal numbers are."""
    taken = _known(s, "sampled")
    spread = (taken * ratio(_known(s, "change_fourths"), _known(s, "change_squares") ** 2) - 1.0).clip(lower=0.0)
    variance: pd.Series = (spread + 2.0) / taken * (1.0 - taken / s["numel"]).clip(lower=0.0)
    return variance.pow(0.5) / 2.0


def _moment(s: pd.DataFrame, name: str) -> pd.Series:
    moment: pd.Series = np.sqrt(ratio(_known(s, name) * s["numel"], _known(s, "sampled")))
    return moment


#: What is made of ``PARAMETER_SUMS``.
PARAMETER_FACTS: tuple[Column, ...] = (
    Column("update_ratio", "float", "‖w after the optimizer − w before‖ / ‖w before‖ over the sampled entries; missing "
           "where nobody wrote to it", formula=_update_ratio),
    Column("update_ratio_error", "float", "its relative standard error from sampling; 0 where all entries are taken",
           formula=_error),
    Column("active", "float", "sampled entries whose gradient is not 0; missing where no optimizer has stepped",
           formula=lambda s: _known(s, "active")),
    Column("still_share", "float", "share of the active entries that the step did not change",
           formula=lambda s: ratio(_known(s, "still"), _known(s, "active"))),
    Column("grad_weight", "float", "Σ grad·w: the derivative of the loss by the logarithm of the parameter's size",
           "loss", formula=lambda s: _known(s, "grad_weight")),
    Column("rows", "float", "rows along the first dimension; missing for biases, embeddings, and where a process has "
           "parts of rows", formula=lambda s: _known(s, "rows")),
    Column("dead_rows", "float", "those of them whose gradient is 0 (below 1e-19)",
           formula=lambda s: _known(s, "dead_rows")),
    Column("idle_rows", "float", f"those for which it was in all of {IDLE} recorded steps up to this one",
           formula=lambda s: _known(s, "idle_rows")),
    Column("weight_least", "float", "least entry of a vector that is no bias: a norm's gain", "weight",
           formula=lambda s: _known(s, "weight_least")),
    Column("weight_most", "float", "largest entry of it", "weight", formula=lambda s: _known(s, "weight_most")),
    Column("weight_mean", "float", "mean of its entries", "weight",
           formula=lambda s: ratio(_known(s, "weight_total"), s["numel"])),
    Column("first_moment_norm", "float", "L2 norm of what Adam and its like keep as exp_avg, after the step, from the "
           "sampled entries", "loss/weight", formula=lambda s: _moment(s, "first_moment_squares")),
    Column("second_moment_norm", "float", "the same of exp_avg_sq", "(loss/weight)²",
           formula=lambda s: _moment(s, "second_moment_squares")),
)  # fmt: skip
