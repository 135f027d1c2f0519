"""Post-LN without a warm-up is one story: the imbalance over depth first, the last block's gradient under it."""

import numpy as np
import pandas as pd
import pytest

import gradlens
from gradlens.analysis import Cause
from gradlens.recording import Recording

STEPS, BLOCKS, AT = 100, 8, 60


def recording(placement: str, warmed: bool, forward: bool = False) -> Recording:
    """Blocks whose last one's gradient jumps, with a gradient that falls towards the first."""
    random, steps = np.random.default_rng(0), np.arange(STEPS)
    late = np.where(steps >= AT, 30.0, 1.0)
    params, sites, activations = [], [], []
    for block in range(BLOCKS):
        jump = late if block == BLOCKS - 1 else np.ones(STEPS)
        path, noise = f"blocks.{block}", np.exp(0.05 * random.normal(size=STEPS))
        params.append({"step": steps, "name": f"{path}.w", "numel": 9, "grad_norm": 0.45 ** (8 - block) * jump * noise})
        sites.append({"site": path, "kind": "block", "block": block})
        sites.append({"site": f"{path}.norm", "kind": "norm", "placement": placement, "block": block})
        # Where a norm ends the block, what it makes of its input is read before that.
        made = jump * noise if forward else noise
        for site, tensor, rms in ((path, "input", 1.0), (path, "output", made), (f"{path}.norm", "input", made)):
            activations.append({"step": steps, "site": site, "call": 0, "rank": 0, "tensor": tensor, "rms": rms})
    rate = 1e-3 * np.minimum(1.0, (1 + steps) / 40) if warmed else 1e-3
    tables = {
        "sites": pd.DataFrame(sites).assign(order=range(2 * BLOCKS)),
        "params": pd.concat([pd.DataFrame(rows) for rows in params]),
        "activations": pd.concat([pd.DataFrame(rows).assign(numel=9) for rows in activations]),
        "steps": pd.DataFrame({"step": steps, "loss": np.linspace(3.0, 1.0, STEPS), "grad_norm": 1.0, "lr": rate}),
    }
    return Recording.from_tables({"kind": "attached", "label": "run"}, **tables)


def first(made: Recording) -> Cause:
    return gradlens.compare([made]).causes[0]


def test_what_the_last_blocks_gradient_does_follows_from_the_imbalance() -> None:
    cause = first(recording("post_add", warmed=False))
    assert cause.finding.code == "GL305"
    assert cause.finding.remedies[:2] == (
        "Warm up, or lower the learning rate.",
        "Take the norm before the branch (Pre-LN).",
    )
    (symptom,) = (one for one in cause.symptoms if one.code == "GL309")
    assert (symptom.onset, symptom.born) == (AT, "backward")
    assert symptom.remedies[0] == "Warm up, or lower the learning rate."


@pytest.mark.parametrize(("placement", "warmed"), [("post_add", True), ("pre_branch", False)])
def test_where_there_was_a_warm_up_or_none_is_needed_the_block_is_the_cause(placement: str, warmed: bool) -> None:
    cause = first(recording(placement, warmed))
    assert (cause.finding.code, cause.symptoms[0].code) == ("GL309", "GL305")
    assert "arm up" not in " ".join(cause.finding.remedies)


def test_and_so_is_a_block_that_amplifies_in_the_forward_pass() -> None:
    cause = first(recording("post_add", warmed=False, forward=True))
    assert (cause.finding.code, cause.finding.born) == ("GL309", "forward")
