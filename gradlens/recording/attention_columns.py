"""The columns of the tables ``attention`` and ``tokens``, but for those that norms have too.

Symbols: p are the weights that softmax gives one query, over the n keys that no mask hides from it. Sums are over
sampled queries: at most 16 a sequence, of at most 8 sequences a call, at evenly spaced places.
"""

import numpy as np
import pandas as pd

from gradlens.recording.column import Column, key, ratio, summed

STORED_ATTENTION: tuple[Column, ...] = (
    key("head", "int", "the head, from 0"),
    Column("sampled", "int", "queries that were looked at", merge="sum"),
    Column("queries", "int", "those of them that are finite and see two keys or more", merge="sum"),
    summed("keys", "Σ n over them"),
    summed("entropy", "Σ −Σ p ln p", "nats"),
    summed("relative", "Σ of that entropy over ln n"),
    summed("first", "Σ of p at the first key"),
    Column("logit_max", "float", "largest logit, after scale and mask", merge="max"),
)  # fmt: skip

DERIVED_ATTENTION: tuple[Column, ...] = (
    STORED_ATTENTION[0],
    Column("sampled", "int", "queries that were looked at, at most 16 of each of at most 8 sequences"),
    Column("queries", "int", "those of them that are finite and see two keys or more, over which the means are"),
    Column("keys", "float", "keys that a query sees, mean", formula=lambda s: ratio(s["keys"], s["queries"])),
    Column("entropy", "float", "entropy of a query's weights, mean", "nats",
           formula=lambda s: ratio(s["entropy"], s["queries"])),
    Column("relative_entropy", "float", "the same over the logarithm of the keys that it sees: 1 looks at all of them "
           "alike, 0 at one alone", formula=lambda s: ratio(s["relative"], s["queries"])),
    Column("first_share", "float", "share of the weights on the first key, mean: an attention sink where it is near 1",
           formula=lambda s: ratio(s["first"], s["queries"])),
    Column("logit_max", "float", "largest logit, after scale and mask"),
)  # fmt: skip

STORED_TOKENS: tuple[Column, ...] = (
    Column("first_vectors", "int", "vectors at the first token that are finite, and whose grad_output came",
           merge="sum"),
    Column("rest_vectors", "int", "those at the other tokens", merge="sum"),
    summed("first_inv_sigma", "Σ 1/σ at the first token", "1/input"),
    summed("rest_inv_sigma", "Σ 1/σ at the others", "1/input"),
    summed("first_energy", "Σ ‖grad_output‖² at the first token", "(loss/output)²"),
    summed("rest_energy", "Σ ‖grad_output‖² at the others", "(loss/output)²"),
)  # fmt: skip


def _over_rest(s: pd.DataFrame, name: str) -> pd.Series:
    """Return the mean of a sum at the first token over that at the others."""
    return ratio(ratio(s[f"first_{name}"], s["first_vectors"]), ratio(s[f"rest_{name}"], s["rest_vectors"]))


DERIVED_TOKENS: tuple[Column, ...] = (
    *STORED_TOKENS[:2],
    Column("grad_output_ratio", "float", "root mean square of ‖grad_output‖ at the first token over that at the "
           "others", formula=lambda s: np.sqrt(_over_rest(s, "energy"))),
    Column("inv_sigma_ratio", "float", "mean of 1/σ at the first token over that at the others",
           formula=lambda s: _over_rest(s, "inv_sigma")),
)  # fmt: skip
