"""``attention`` finds what was planted, into tables and into real trainings, and healthy runs are told nothing."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.special import psi
from torch import nn

import gradlens
from analyses.attention import ANALYSIS, caption
from analyses.limits import limit
from gradlens.analysis import Finding
from gradlens.analysis.causes import causes
from gradlens.analysis.figures import draw
from gradlens.recording import Recording
from tests.analyses.pictures import faults
from tests.analyses.trained import CURVES, sequences, transformer

STEPS, SITES, HEADS = 120, 3, 4


def planted(
    entropy: Callable[[int, int, int], float],
    logit: Callable[[int, int, int], float] = lambda step, site, head: 5.0,
    *,
    first: float = 0.1,
    steps: int = STEPS,
    every: int = 1,
    tokens: tuple[float, float] | None = None,
) -> Recording:
    """A run whose attention is as functions of step, site and head say, and some noise."""
    rng = np.random.default_rng(0)
    rows = [
        {"step": every * step, "site": f"blocks.{site}.attention", "call": 0, "rank": 0, "head": head, "sampled": 64,
         "queries": 64, "keys": 16.0, "relative_entropy": entropy(step, site, head) * rng.uniform(0.98, 1.0),
         "entropy": math.log(16), "first_share": first, "logit_max": logit(step, site, head)}
        for step in range(steps) for site in range(SITES) for head in range(HEADS)
    ]  # fmt: skip
    tables = {"attention": pd.DataFrame(rows), "steps": pd.DataFrame({"step": every * np.arange(steps), "loss": 1.0})}
    if tokens is not None:
        ratios = {"grad_output_ratio": tokens[0], "inv_sigma_ratio": tokens[1]}
        tables["tokens"] = pd.DataFrame(
            [{"step": step, "site": site, "call": 0, "rank": 0, **(ratios if site == "blocks.1.norm" else {
                "grad_output_ratio": 1.0, "inv_sigma_ratio": 1.0})}
             for step in range(steps) for site in ("blocks.0.norm", "blocks.1.norm")]
        )  # fmt: skip
    return Recording.from_tables({"kind": "attached", "label": "run"}, **tables)


def judged(recording: Recording) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute([recording]))}


def learning(step: int, site: int, head: int) -> float:
    """One head of each site becomes one-hot as it learns, others little by little."""
    return 0.95 - (0.94 if head == 0 else 0.3) * min(1.0, step / 60)


def test_heads_that_become_sharp_as_they_learn_are_told_nothing() -> None:
    found = judged(planted(learning))
    assert {code: finding.status for code, finding in found.items() if finding.status != "not applicable"} == {
        "GL901": "pass",
        "GL902": "pass",
    }


def test_a_site_that_becomes_sharp_little_by_little_is_told_nothing_while_its_logits_are_small() -> None:
    slow = planted(lambda step, site, head: 0.95 - 0.9 * min(1.0, step / 60))
    assert judged(slow)["GL901"].status == "pass"


@pytest.mark.parametrize("at", [3, 40, 100])
def test_a_site_whose_entropy_falls_at_once_is_named_with_its_step(at: int) -> None:
    fell = planted(lambda step, site, head: 0.1 if site == 1 and step >= at else learning(step, site, head), every=10)
    found = judged(fell)["GL901"]
    assert found.status == "warn"
    assert (found.onset, found.steps, found.sites) == (10 * at, (10 * at,), ("blocks.1.attention",))
    assert found.born == "forward"
    assert f"step {10 * at}" in found.remedies[0]


def test_what_falls_and_comes_back_or_comes_in_the_last_step_is_no_finding() -> None:
    dip = planted(lambda step, site, head: 0.1 if 40 <= step < 50 else 0.9)
    late = planted(lambda step, site, head: 0.1 if step >= STEPS - 2 else 0.9)
    assert judged(dip)["GL901"].status == judged(late)["GL901"].status == "pass"


def test_saturated_from_the_start_has_no_onset_and_fails_where_half_of_the_sites_are() -> None:
    found = judged(planted(lambda step, site, head: 0.1 if site else 0.9))["GL901"]
    assert (found.status, found.onset) == ("fail", None)
    assert "from the start" in found.claim
    assert "√d" in found.remedies[0]
    assert found.sites == ("blocks.1.attention", "blocks.2.attention")


def test_a_sink_has_little_entropy_and_is_not_saturated() -> None:
    assert judged(planted(lambda step, site, head: 0.1, first=0.9))["GL901"].status == "pass"


def test_one_head_whose_logits_pass_qk_clips_limit_is_named() -> None:
    grown = planted(
        lambda step, site, head: 0.05 if (site, head) == (2, 3) and step > 50 else 0.9,
        lambda step, site, head: 2.0 * step if (site, head) == (2, 3) else 5.0,
    )
    found = judged(grown)["GL901"]
    assert (found.status, found.onset, found.sites) == ("warn", 51, ("blocks.2.attention",))
    assert "head 3" in found.claim
    large = planted(lambda step, site, head: 0.9, lambda step, site, head: 500.0)
    assert judged(large)["GL901"].status == "pass"  # what all keys have in common is no difference


def test_the_limit_is_the_entropy_of_random_logits_that_spread_four_times_too_far() -> None:
    generator, keys = torch.Generator().manual_seed(0), 16
    condensed = math.sqrt(2 * math.log(keys))
    logits = torch.randn(20_000, keys, generator=generator, dtype=torch.float64)
    for spread, bound in ((4 * condensed, (0.0, limit("GL901", "entropy"))), (1.0, (0.8, 1.0))):
        p = (spread * logits).softmax(-1)
        relative = float(torch.special.entr(p).sum(-1).mean()) / math.log(keys)
        assert bound[0] < relative < bound[1]
    assert (psi(1.0) - psi(0.75)) / math.log(keys) == pytest.approx(limit("GL901", "entropy"), abs=0.03)


def uniform(apart: Callable[[int], float], **settings: Any) -> Finding:
    rows = planted(lambda step, site, head: 1.0, **settings)
    table = rows.attention
    table["relative_entropy"] = [1.0 - (apart(s) if "blocks.1" in site else 0.1) for s, site in
                                 zip(table["step"], table["site"], strict=True)]  # fmt: skip
    return judged(Recording.from_tables(rows.meta, attention=table, steps=rows.steps))["GL902"]


def test_a_site_that_looks_at_all_keys_alike_to_the_end_is_named() -> None:
    found = uniform(lambda step: 2e-4, every=10)
    assert (found.status, found.sites) == ("warn", ("blocks.1.attention",))
    assert uniform(lambda step: 0.0).status == uniform(lambda step: 1e-9 * (1 + step)).status == "warn"


def test_one_that_begins_to_learn_or_has_only_begun_is_not() -> None:
    assert uniform(lambda step: 2e-4).status == "pass"
    assert uniform(lambda step: 1e-6 * (1 + step), every=10).status == "pass"
    assert uniform(lambda step: 2e-3, every=10).status == "pass"
    assert uniform(lambda step: 0.0, steps=60).status == "not applicable"


@pytest.mark.parametrize(
    ("tokens", "first", "status"),
    [
        ((40.0, 0.9), 0.7, "warn"),
        ((40.0, 0.9), 0.1, "pass"),
        ((40.0, 0.01), 0.7, "pass"),
        (None, 0.7, "not applicable"),
    ],
)
def test_a_gradient_sink_warns_where_its_norm_does_not_damp_it(tokens: Any, first: float, status: str) -> None:
    found = judged(planted(learning, first=first, tokens=tokens))["GL903"]
    assert found.status == status
    if tokens is not None:
        assert found.value == pytest.approx(tokens[0] * tokens[1])
        assert "blocks.1.norm" in found.claim
    assert found.sites == (("blocks.1.norm",) if status == "warn" else ())


def test_without_the_watch_it_says_how_to_record_it() -> None:
    table = ANALYSIS.compute([Recording.from_tables({"kind": "attached"}, steps=pd.DataFrame({"step": [0, 1]}))])
    (found,) = ANALYSIS.judge(table)
    assert (found.code, found.status) == ("GL901", "not applicable")
    assert '"attention")' in found.claim
    assert caption(table) == ""


def test_the_figure_has_a_row_a_site_and_cuts_nothing() -> None:
    table = ANALYSIS.compute([planted(learning, steps=300)])
    figure = draw(ANALYSIS, table)
    assert faults(figure) == []
    assert figure.axes[0].images[0].get_array().shape == (SITES, 100)
    assert "Pale" in caption(table)


# ------------------------------------------------------------------ real trainings


def trained(model: nn.Module, steps: int = 120, before: Callable[[nn.Module, int], None] | None = None) -> Recording:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    watch = ("norms", "blocks", "params", "attention")
    with gradlens.attach(model, watch=watch, optimizer=optimizer, label="run", strict=True) as lens:
        for step in range(steps):
            if before is not None:
                before(model, step)
            x, y = sequences()(step)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
            loss.backward()
            optimizer.step()
            lens.step(loss=loss)
    return lens.recording


def scaled(factor: float, at: int, only: str = "") -> Callable[[nn.Module, int], None]:
    """Multiply the scale of q·k by a factor before a step: the weights of the queries hold it."""

    def act(model: nn.Module, step: int) -> None:
        if step == at:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if ".attention.q" in name and only in name:
                        parameter.mul_(factor)

    return act


@pytest.mark.parametrize("variant", ["pre-ln", "post-ln"])
def test_a_healthy_transformer_passes(variant: str) -> None:
    torch.manual_seed(0)
    found = judged(trained(transformer(variant)))
    assert {code: finding.status for code, finding in found.items()} == dict.fromkeys(ANALYSIS.codes, "pass")


@pytest.mark.parametrize(("only", "status"), [("blocks.1", "warn"), ("", "fail")])
def test_a_transformer_whose_scale_grows_thirtyfold_at_a_step_is_named_with_site_and_step(
    only: str, status: str
) -> None:
    torch.manual_seed(0)
    run = trained(transformer(), before=scaled(30.0, 50, only))
    found = judged(run)["GL901"]
    assert (found.status, found.onset, found.born) == (status, 50, "forward")
    assert found.sites == (("blocks.1.attention",) if only else tuple(f"blocks.{b}.attention" for b in range(3)))
    symptoms = CURVES.judge(CURVES.compute([run]))
    assert not {cause.finding.code for cause in causes([*symptoms, found])} & set(found.explains)


def test_a_transformer_whose_scale_is_that_of_another_world_from_the_start_is_named() -> None:
    torch.manual_seed(0)
    found = judged(trained(transformer(), steps=40, before=scaled(100.0, 0)))["GL901"]
    assert (found.status, found.onset) == ("fail", None)


def test_a_transformer_whose_scores_are_divided_away_looks_at_nothing() -> None:
    torch.manual_seed(0)

    def nothing(model: nn.Module, step: int) -> None:
        scaled(0.0, step)(model, step)

    found = judged(trained(transformer(), before=nothing))["GL902"]
    assert found.status == "warn"
    assert len(found.sites) == 3
