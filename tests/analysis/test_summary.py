import math

import pandas as pd
import pytest

from gradlens.analysis.summary import MEANING, summary
from gradlens.recording import Recording

BLOCKS = ("encoder.blocks.0", "encoder.blocks.1", "decoder.blocks.0", "decoder.blocks.1")


def planted(kind: str, steps: int) -> Recording:
    """Two stacks; the decoder's last block has twice the gradient and thrice the stream of its first."""
    norm = {
        "encoder.blocks.0": 9.0,
        "encoder.blocks.1": 7.0,
        "decoder.blocks.0": 1.0,
        "decoder.blocks.1": 2.0,
    }
    index = range(steps)
    params = [
        {"step": s, "name": f"{b}.{leaf}", "numel": 10, "grad_norm": norm[b] * part * (1 + s % 2)}
        for s in index for b in BLOCKS for leaf, part in (("w1.weight", 0.6), ("w2.weight", 0.8))
    ]  # fmt: skip
    outputs = [
        {"step": s, "site": b, "tensor": t, "rms": 3.0 if (b, t) == (BLOCKS[-1], "output") else 1.0}
        for s in index for b in BLOCKS for t in ("input", "output")
    ]  # fmt: skip
    norms = [{"step": s, "site": "n", "call": c, "kept": k} for s in index for c, k in ((0, 0.9), (1, 0.7))]
    table = {"step": list(index), "loss": [10.0 - s for s in index], "seconds": [0.5] + [0.1] * (steps - 1)}
    table["valid_loss"] = [5.0, 4.0] + [float("nan")] * (steps - 2)
    # 1 before 10: in the sites' own order, not that of their names.
    sites = [{"site": b, "kind": "block", "order": i} for i, b in enumerate(BLOCKS)]
    return Recording.from_tables(
        {"label": kind, "kind": kind, "status": "diverged"},
        sites=pd.DataFrame(sites), params=pd.DataFrame(params), activations=pd.DataFrame(outputs),
        norms=pd.DataFrame(norms), steps=pd.DataFrame(table),
    )  # fmt: skip


def test_the_numbers_of_the_last_stack_are_found_again() -> None:
    row = summary([planted("training", 40)]).iloc[0]
    assert row["gradient_ratio"] == pytest.approx(2.0)
    assert row["stream_rms"] == pytest.approx(3.0)
    assert row["kept"] == pytest.approx(0.8)
    assert row["parameters"] == 80
    assert row["loss"] == pytest.approx(10 - (30 + 39) / 2)  # the last ten steps
    assert row["valid_loss"] == 4.0
    assert row["seconds"] == pytest.approx(0.1)
    assert (row["measured"], row["status"]) == ("40 steps", "diverged")


def test_an_initialization_has_seeds_and_no_loss_or_speed() -> None:
    row = summary([planted("init", 5)]).iloc[0]
    assert row["measured"] == "5 seeds"
    assert math.isnan(row["loss"])
    assert math.isnan(row["seconds"])
    assert row["gradient_ratio"] == pytest.approx(2.0)


def test_an_empty_recording_has_a_row_of_missing_values() -> None:
    table = summary([Recording.from_tables({"label": "empty", "kind": "attached"})])
    assert list(table.columns) == list(MEANING)
    numbers = table.drop(columns=["recording", "measured", "status"])
    assert numbers.isna().all().all()
    assert table["measured"][0] == "0 steps"
