"""What a recording holds: every table and column, with its meaning, unit and formula.

Two layers. *Stored* columns are what the disk keeps: counts, sums, sums of squares and maxima, which merge
exactly over calls, micro-batches, attempts and ranks. *Public* columns are what users and analyses see: shares,
norms, means, derived from the merged sums by the formula that stands beside them and never averaged themselves.

The rows of a step are of exactly those passes that make up the gradient which the step's last backward pass left in the
parameters: micro-batches that accumulate all count, what was zeroed before that does not. Where several backward passes
go through one call of a module (``retain_graph=True``), their energies add: Σ‖grad_output‖² is then the sum of the
passes' own, not that of the gradient of the summed loss. The lens' audit counts what was left out, and says why.

Symbols: g = dL/dx̂ = γ ⊙ grad_output; a = grad_input; per vector of ``width`` H entries ḡ is the mean of g and
D_g its variance; σ includes eps as the layer applies it.
"""

from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from gradlens.recording.attention_columns import (
    DERIVED_ATTENTION,
    DERIVED_TOKENS,
    STORED_ATTENTION,
    STORED_TOKENS,
)
from gradlens.recording.column import Column
from gradlens.recording.column import key as _key
from gradlens.recording.column import ratio as _ratio
from gradlens.recording.column import summed as _sum
from gradlens.recording.output_columns import DERIVED_OUTPUTS, STORED_OUTPUTS
from gradlens.recording.parameter_columns import PARAMETER_FACTS, PARAMETER_SUMS

#: Raised by one when a stored column changes its meaning; older programs refuse newer folders.
SCHEMA_VERSION = 1


def _share(s: pd.DataFrame, energy: str) -> pd.Series:
    return _ratio(s[energy], s["energy_g"].where(s["n_grad_output"] > 0))


def _kept(s: pd.DataFrame) -> pd.Series:
    # Of the same vectors, or the two energies cannot be compared.
    return _share(s, "energy_kept").where(s["n_grad_input"] == s["n_grad_output"])


def _norm(s: pd.DataFrame, end: str) -> pd.Series:
    norm: pd.Series = np.sqrt(s[f"energy_{end}"].where(s[f"n_{end}"] > 0))
    return norm


def _nan_loss(s: pd.DataFrame) -> pd.Series:
    # Recordings of an earlier gradlens do not say it.
    return s["nan_loss"].eq(True) if "nan_loss" in s else pd.Series(False, s.index)


def _reason(s: pd.DataFrame) -> pd.Series:
    return s["reason"].astype("str") if "reason" in s else pd.Series(np.nan, s.index, dtype="str")


_STEP = _key("step", "int", "optimizer step, from 0; in an init recording the index of the seed")
_SITE = _key("site", "string", "the module's path, as named_modules gives it")
_CALL = _key("call", "int", "k-th call of the module in the step, from 0")
_RANK = _key("rank", "int", "process rank; 0 alone")

#: What is summed of each call of a norm, in three phases: of its input, of grad_output, of grad_input.
NORM_SUMS: tuple[tuple[Column, ...], ...] = (
    (
        _sum("n_input", "vectors that are finite in input, grad_output and grad_input"),
        _sum("inv_sigma", "Σ 1/σ", "1/input"),
    ),
    (
        _sum("n_grad_output", "those of them whose grad_output arrived"),
        _sum("energy_grad_output", "Σ ‖grad_output‖²", "(loss/output)²"),
        _sum("energy_g", "Σ ‖g‖²", "loss²"),
        _sum("energy_mean", "Σ H·ḡ²: what subtracting the mean of g removes, or would remove", "loss²"),
        _sum("energy_recentering", "the same where the derivative of μ flows, else 0", "loss²"),
        _sum("mean2_detached", "Σ (ḡ/σ)²", "(loss/input)²"),
        _sum("var_detached", "Σ D_g/σ²", "(loss/input)²"),
    ),
    (
        _sum("n_grad_input", "those of them whose grad_input arrived"),
        _sum("energy_grad_input", "Σ ‖a‖²", "(loss/input)²"),
        _sum("energy_kept", "Σ ‖a‖²·σ²", "loss²"),
        _sum("mean2_actual", "Σ ā²", "(loss/input)²"),
        _sum("var_actual", "Σ (‖a‖²/H − ā²)", "(loss/input)²"),
    ),
)

STORED: dict[str, tuple[Column, ...]] = {
    "sites": (
        _SITE,
        Column("module_class", "string", "the module's class, with its package"),
        Column("kind", "string", "norm, block, or module (watched by a regular expression)"),
        Column("norm", "string", "kind of normalization; missing for others"),
        Column(
            "placement", "string", "pre_branch, in_branch, post_branch, post_add, final, embed, qk, or unknown",
            merge="told",
        ),
        Column("block", "int", "index of the enclosing block in its stack; missing outside of blocks", merge="told"),
        Column("order", "int", "order of registration, from 0"),
        Column("width", "int", "features in one vector; missing where it depends on the batch"),
        Column("eps", "float", "the layer's own eps", "input²"),
        Column("affine", "bool", "whether there is a gain γ"),
        Column("centered", "bool", "whether the mean is subtracted"),
    ),
    "norms": (
        _STEP, _SITE, _CALL, _RANK,
        Column("width", "int", "H: entries in one vector"),
        Column("vectors", "int", "vectors that went in", merge="sum"),
        *chain(*NORM_SUMS),
    ),
    "activations": (
        _STEP, _SITE, _CALL, _RANK,
        _key("tensor", "string", "input or output"),
        Column("width", "int", "entries in one vector: the norm's, the last dimension, or (4-D) a sample"),
        Column("vectors", "int", "vectors in the tensor", merge="sum"),
        _sum("n", "vectors that are finite"),
        _sum("total", "Σ x over finite vectors"),
        _sum("squares", "Σ x² over finite vectors"),
        Column("absmax", "float", "max |x|; missing where an entry is not finite", merge="max"),
    ),
    "params": (
        _STEP,
        _key("name", "string", "the parameter's name, as named_parameters gives it"),
        Column("numel", "int", "entries", merge="sum"),
        _sum("grad_squares", "Σ grad², at the end of backward; missing without a gradient"),
        Column("grad_absmax", "float", "max |grad|", merge="max"),
        _sum("weight_squares", "Σ w², where the gradient was taken"),
        _sum("update_squares", "Σ (w after the optimizer − w before)²; missing unless watched"),
        Column("nonfinite", "int", "entries of the gradient that are NaN or infinite", merge="sum"),
        *PARAMETER_SUMS,
    ),
    "outputs": (_STEP, *STORED_OUTPUTS),
    "attention": (_STEP, _SITE, _CALL, _RANK, *STORED_ATTENTION),
    "tokens": (_STEP, _SITE, _CALL, _RANK, *STORED_TOKENS),
    "probes": (
        _STEP,
        _key("probe", "string", "the probe's name"),
        _key("site", "string", "module path, or empty for the whole model"),
        _key("name", "string", "the number's name"),
        Column("value", "float", "the number"),
        Column("low", "float", "lower end of its interval"),
        Column("high", "float", "upper end of its interval"),
        Column("unit", "string", "unit of value, low and high"),
    ),
    "steps": (
        _STEP,
        # A mean over processes of which one has a NaN is none.
        Column("loss", "float", "the loss that was passed to step(); the mean over processes", "loss", merge="mean",
               formula=lambda s: s["loss"].mask(_nan_loss(s))),
        Column("lr", "float", "learning rate of the first parameter group", "1/step"),
        Column("grad_norm", "float", "L2 norm of all gradients of parameters, if finite", "loss/weight", merge="norm"),
        Column("clip_coef", "float", "gradient after clipping / before", merge="mean"),
        Column("loss_scale", "float", "the factor the loss was multiplied by"),
        Column("seconds", "float", "wall time since the step before", "s", merge="mean"),
        Column("nan_loss", "bool", "whether a loss was passed to step() that is NaN, by any process: it is missing "
               "then, as where none was passed", merge="max", formula=_nan_loss),
        Column("reason", "string", "the event that the step follows, and is recorded for: loss or grad_norm (left its "
               "recent range), nonfinite, skipped (by a scaler), lr (twofold), trained (other parameters); missing "
               "where it follows none", formula=_reason),
    ),
}  # fmt: skip

_UNKNOWN_SUMS = dict.fromkeys((c.name for c in PARAMETER_SUMS), float("nan"))
#: Columns that recordings of an earlier gradlens lack, and what stands for them.
ADDED: dict[str, Any] = {"nan_loss": False, "reason": None, **_UNKNOWN_SUMS}

#: Sums of gradients squared: a loss that is s times as large has them s² times as large.
GRADIENT_SQUARES = tuple(c.name for c in STORED["norms"] if "loss" in c.unit)

PUBLIC: dict[str, tuple[Column, ...]] = {
    "sites": STORED["sites"],
    "norms": (
        _STEP, _SITE, _CALL, _RANK,
        Column("vectors", "int", "vectors that went in"),
        Column("width", "int", "H: entries in one vector"),
        Column("recentering", "float", "share of Σ‖g‖² that the derivative of μ removes: ΣH·ḡ²/Σ‖g‖²; 0 where it "
               "does not flow", formula=lambda s: _share(s, "energy_recentering")),
        Column("rescaling", "float", "share that the derivative of σ removes: 1 − recentering − kept. For eps ≪ σ² it "
               "is ΣH·s²/Σ‖g‖² with s = mean(g·x̂); eps makes it the energy balance ΣH·s²(2 − mean x̂²)/Σ‖g‖²",
               formula=lambda s: 1.0 - _share(s, "energy_recentering") - _kept(s)),
        Column("kept", "float", "share that gets through: Σ‖grad_input‖²σ²/Σ‖g‖²", formula=_kept),
        Column("mean_share", "float", "ΣH·ḡ²/Σ‖g‖², whether or not it is removed",
               formula=lambda s: _share(s, "energy_mean")),
        Column("inv_sigma", "float", "mean over vectors of 1/σ", "1/input",
               formula=lambda s: _ratio(s["inv_sigma"], s["n_input"])),
        Column("grad_output_norm", "float", "‖dL/d(output)‖ over all vectors; of several backward passes the root of "
               "the sum of squares", "loss/output", formula=lambda s: _norm(s, "grad_output")),
        Column("grad_input_norm", "float", "‖dL/d(input)‖ through this module only", "loss/input",
               formula=lambda s: _norm(s, "grad_input")),
        Column("backward_gain", "float", "grad_input_norm / grad_output_norm", "output/input",
               formula=lambda s: _ratio(_norm(s, "grad_input"), _norm(s, "grad_output"))),
        Column("mean2_detached", "float", "mean over vectors of (ḡ/σ)²: as DetachNorm sends back", "(loss/input)²",
               formula=lambda s: _ratio(s["mean2_detached"], s["n_grad_output"])),
        Column("var_detached", "float", "mean over vectors of D_g/σ²: as DetachNorm would send back", "(loss/input)²",
               formula=lambda s: _ratio(s["var_detached"], s["n_grad_output"])),
        Column("mean2_actual", "float", "mean over vectors of ā², a = grad_input", "(loss/input)²",
               formula=lambda s: _ratio(s["mean2_actual"], s["n_grad_input"])),
        Column("var_actual", "float", "mean over vectors of D_a", "(loss/input)²",
               formula=lambda s: _ratio(s["var_actual"], s["n_grad_input"])),
        Column("nonfinite", "int", "vectors with a NaN or infinity in input, grad_output or grad_input; left out "
               "of every sum", formula=lambda s: (s["vectors"] - s["n_input"]).astype("int64")),
    ),
    "activations": (
        _STEP, _SITE, _CALL, _RANK,
        Column("tensor", "string", "input or output"),
        Column("mean", "float", "mean of the entries", formula=lambda s: _ratio(s["total"], s["n"] * s["width"])),
        Column("rms", "float", "root mean square of the entries",
               formula=lambda s: np.sqrt(_ratio(s["squares"], s["n"] * s["width"]))),
        Column("absmax", "float", "largest |entry|; missing where one is not finite",
               formula=lambda s: s["absmax"].where(s["n"] > 0)),
        Column("nonfinite", "int", "vectors with a NaN or infinity; left out of every sum",
               formula=lambda s: (s["vectors"] - s["n"]).astype("int64")),
        Column("numel", "int", "entries", formula=lambda s: (s["vectors"] * s["width"]).astype("int64")),
    ),
    "params": (
        _STEP,
        Column("name", "string", "the parameter's name, as named_parameters gives it"),
        Column("numel", "int", "entries"),
        Column("grad_norm", "float", "L2 norm of the gradient at the end of backward, before clipping", "loss/weight",
               formula=lambda s: np.sqrt(s["grad_squares"])),
        Column("grad_absmax", "float", "largest |entry| of the gradient", "loss/weight"),
        Column("weight_norm", "float", "L2 norm of the weights, where the gradient was taken", "weight",
               formula=lambda s: np.sqrt(s["weight_squares"])),
        Column("update_norm", "float", "L2 norm of the optimizer's change; missing unless watched", "weight",
               formula=lambda s: np.sqrt(s["update_squares"])),
        Column("nonfinite", "int", "entries of the gradient that are NaN or infinite, left out of the norms (on CUDA 1 "
               "says that there are some, and the norms are missing)"),
        *PARAMETER_FACTS,
    ),
    "outputs": (_STEP, *DERIVED_OUTPUTS),
    "attention": (_STEP, _SITE, _CALL, _RANK, *DERIVED_ATTENTION),
    "tokens": (_STEP, _SITE, _CALL, _RANK, *DERIVED_TOKENS),
    "probes": STORED["probes"],
    "steps": STORED["steps"],
}  # fmt: skip

TABLES = tuple(STORED)


def names(columns: tuple[Column, ...]) -> list[str]:
    """Return the column names in order."""
    return [column.name for column in columns]
