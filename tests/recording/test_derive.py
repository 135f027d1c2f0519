"""From stored sums to what a reader sees, each column against the formula of its meaning, row by row."""

import math

import numpy as np
import pandas as pd
import pytest

from gradlens.recording import derive
from gradlens.recording.schema import GRADIENT_SQUARES, PUBLIC, STORED, names

KEYS = {"step": 3, "site": "a", "call": 0, "rank": 0}


def norm_row(**changes: float) -> dict[str, float | int | str]:
    return {
        **KEYS,
        "width": 8,
        "vectors": 12,
        "n_input": 10,
        "inv_sigma": 5.0,
        "n_grad_output": 10,
        "energy_grad_output": 9.0,
        "energy_g": 16.0,
        "energy_mean": 4.0,
        "energy_recentering": 2.0,
        "mean2_detached": 0.5,
        "var_detached": 0.7,
        "n_grad_input": 10,
        "energy_grad_input": 25.0,
        "energy_kept": 6.0,
        "mean2_actual": 0.2,
        "var_actual": 0.3,
        **changes,
    }


def norms(**changes: float) -> pd.Series:
    return derive.public("norms", pd.DataFrame([norm_row(**changes)])).iloc[0]


def test_shares_are_energies_over_that_of_g_and_sum_to_one() -> None:
    row = norms()
    assert row["recentering"] == 2.0 / 16.0
    assert row["kept"] == 6.0 / 16.0
    assert row["rescaling"] == 1.0 - 2.0 / 16.0 - 6.0 / 16.0
    assert row["mean_share"] == 4.0 / 16.0


def test_norms_are_roots_of_energies_and_means_are_over_the_vectors_that_came() -> None:
    row = norms(n_grad_output=5, n_grad_input=5)
    assert row["inv_sigma"] == 5.0 / 10
    assert (row["grad_output_norm"], row["grad_input_norm"]) == (3.0, 5.0)
    assert row["backward_gain"] == 5.0 / 3.0
    assert (row["mean2_detached"], row["var_detached"]) == (0.5 / 5, 0.7 / 5)
    assert (row["mean2_actual"], row["var_actual"]) == (0.2 / 5, 0.3 / 5)
    assert row["nonfinite"] == 12 - 10


def test_what_did_not_come_is_missing_and_never_zero() -> None:
    zeros = dict.fromkeys((name for name in GRADIENT_SQUARES), 0.0)
    nothing = norms(n_grad_output=0, n_grad_input=0, **zeros)
    known = {"step", "site", "call", "rank", "vectors", "width", "inv_sigma", "nonfinite"}
    assert nothing.drop(list(known)).isna().all()
    no_input = norms(n_grad_input=0)
    missing = {"rescaling", "kept", "grad_input_norm", "backward_gain", "mean2_actual", "var_actual"}
    assert {name for name in no_input.index if no_input.isna()[name]} == missing
    assert math.isnan(norms(n_input=0, inv_sigma=0.0)["inv_sigma"])


def test_shares_are_missing_where_the_two_gradients_are_not_of_the_same_vectors() -> None:
    row = norms(n_grad_input=9)
    assert row[["kept", "rescaling"]].isna().all()
    assert row["recentering"] == 2.0 / 16.0
    assert row["grad_input_norm"] == 5.0


def test_a_gradient_of_zero_has_a_norm_and_no_shares() -> None:
    row = norms(**dict.fromkeys(GRADIENT_SQUARES, 0.0))
    assert (row["grad_output_norm"], row["grad_input_norm"]) == (0.0, 0.0)
    assert row[["recentering", "rescaling", "kept", "mean_share", "backward_gain"]].isna().all()


def activation_row(**changes: float) -> dict[str, float | int | str]:
    return {**KEYS, "tensor": "input", "width": 8, "vectors": 12, "n": 10, "total": 40.0, "squares": 320.0,
            "absmax": 7.0, **changes}  # fmt: skip


def test_an_activation_has_mean_and_rms_over_its_finite_vectors() -> None:
    row = derive.public("activations", pd.DataFrame([activation_row()])).iloc[0]
    assert (row["mean"], row["rms"], row["absmax"]) == (40.0 / 80, 2.0, 7.0)
    assert (row["nonfinite"], row["numel"]) == (2, 96)
    none = derive.public("activations", pd.DataFrame([activation_row(n=0, total=0.0, squares=0.0, absmax=0.0)])).iloc[0]
    assert none[["mean", "rms", "absmax"]].isna().all()
    assert (none["nonfinite"], none["numel"]) == (12, 96)


def test_a_parameter_has_roots_of_its_squares() -> None:
    stored = {"step": 1, "name": "w", "numel": 6, "grad_squares": 4.0, "grad_absmax": 1.5, "weight_squares": 9.0,
              "update_squares": 16.0, "nonfinite": 2}  # fmt: skip
    row = derive.public("params", pd.DataFrame([stored])).iloc[0]
    assert (row["grad_norm"], row["grad_absmax"], row["weight_norm"], row["update_norm"]) == (2.0, 1.5, 3.0, 4.0)
    assert (row["numel"], row["nonfinite"]) == (6, 2)


@pytest.mark.parametrize("table", PUBLIC)
def test_a_public_column_is_stored_under_its_name_or_has_a_formula(table: str) -> None:
    plain = [column.name for column in PUBLIC[table] if column.formula is None]
    assert set(plain) <= set(names(STORED[table]))


def test_what_grows_with_the_square_of_the_loss_is_told_by_its_unit() -> None:
    counts = {"vectors", "n_input", "n_grad_output", "n_grad_input"}
    assert set(GRADIENT_SQUARES) == set(norm_row()) - set(KEYS) - counts - {"width", "inv_sigma"}


RULES = {
    "sum": lambda values: sum(v for v in values if not math.isnan(v)),
    "min": lambda values: min(v for v in values if not math.isnan(v)),
    "max": lambda values: max(v for v in values if not math.isnan(v)),
    "norm": lambda values: math.sqrt(sum(v * v for v in values if not math.isnan(v))),
    "mean": lambda values: float(np.nanmean(values)),
    "same": lambda values: values[0],
}


def rows_of(table: str, count: int, seed: int) -> pd.DataFrame:
    """Rows of one key, and one row of another key between them."""
    generator = np.random.default_rng(seed)
    columns: dict[str, list[object]] = {}
    for column in STORED[table]:
        if column.merge == "key":
            word = column.dtype == "string"
            columns[column.name] = ["a"] * (count + 1) if word else [0] * (count + 1)
        elif column.merge == "same":
            columns[column.name] = ["x" if column.dtype == "string" else 4] * (count + 1)
        else:
            columns[column.name] = list(generator.integers(1, 50, count + 1).astype(float))
    frame = pd.DataFrame(columns)
    frame.loc[1, "step"] = 1
    return frame


@pytest.mark.parametrize("table", ["norms", "activations", "params", "steps"])
def test_rows_of_one_key_merge_by_the_rule_of_each_column(table: str) -> None:
    stored = rows_of(table, 3, seed=0)
    merged = derive.merge(table, stored)
    assert list(merged.columns) == list(stored.columns)
    assert list(merged["step"]) == [0, 1]
    together, alone = stored.drop(index=1), stored.loc[1]
    for column in STORED[table]:
        if column.merge != "key":
            assert merged.loc[0, column.name] == pytest.approx(RULES[column.merge](list(together[column.name]))), column
            assert merged.loc[1, column.name] == alone[column.name]


@pytest.mark.parametrize("table", ["norms", "activations", "params", "steps"])
def test_a_missing_value_is_left_out_of_a_merge_and_two_of_them_stay_missing(table: str) -> None:
    stored = rows_of(table, 2, seed=1)
    merging = [c for c in STORED[table] if c.merge in ("sum", "min", "max", "norm", "mean")]
    one, both = stored.copy(), stored.copy()
    one.loc[2, [c.name for c in merging]] = np.nan
    both.loc[[0, 2], [c.name for c in merging]] = np.nan
    for column in merging:
        kept = float(stored.loc[0, column.name])
        assert derive.merge(table, one).loc[0, column.name] == pytest.approx(kept), column
        assert math.isnan(derive.merge(table, both).loc[0, column.name]), column


def test_what_the_user_added_to_a_step_is_averaged_over_processes() -> None:
    stored = rows_of("steps", 2, seed=2).assign(accuracy=[0.25, 0.5, 0.75])
    assert list(derive.merge("steps", stored)["accuracy"]) == [0.5, 0.5]


def test_over_processes_gradients_are_those_of_the_mean_loss() -> None:
    rows = [norm_row(rank=0), norm_row(rank=1, energy_g=32.0)]
    merged = derive.over_processes("norms", pd.DataFrame(rows), data=2).iloc[0]
    assert merged["rank"] == 0
    assert merged["vectors"] == 24
    assert merged["inv_sigma"] == 10.0
    assert merged["energy_g"] == (16.0 + 32.0) / 4
    for name in set(GRADIENT_SQUARES) - {"energy_g"}:
        assert merged[name] == pytest.approx(2 * rows[0][name] / 4), name


def test_rows_without_a_repeated_key_are_handed_back_as_they_are() -> None:
    stored = rows_of("norms", 1, seed=3)
    assert derive.merge("norms", stored) is stored
