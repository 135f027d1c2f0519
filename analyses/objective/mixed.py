"""GL707: whether a batch holds labels of several kinds."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analyses.limits import limit
from analyses.making import OVERSHOT, SYMPTOMS, Check
from analyses.tables import first, number, percent, pick
from gradlens.analysis import Finding
from gradlens.analysis.finding import place
from gradlens.recording import Recording

CHECK = Check(
    code="GL707",
    analysis="objective",
    explanation=(
        "Batches are mixed. The squared gradient of the output's bias over what it would be if all rows of a batch had "
        "the same gradient at the output: 1 where they have, as where all bear one label, and about one over their "
        "number where labels are drawn; the median over the steps. Above {most:g}, of batches of {rows:g} rows or more "
        "whose labels differ from step to step by {nats:g} nats or more, each step drives the model to predict one "
        "label, and the next step another. It asks for a look, and never fails; where the output has no bias nothing "
        "is said."
    ),
    unit="of rows that all agree",
    expected="about one over the rows of a batch",
    expected_from="labels that are drawn for each batch",
    threshold="at most {most:g}",
    causes=(
        "Samples that follow one another in time, as in reinforcement learning or streams (innocent).",
        "Data that is sorted by label, or stored so, and read without being shuffled.",
        "A sampler that fills each batch from one class, file or source.",
    ),
    remedies=("Shuffle (DataLoader(..., shuffle=True)), or draw each batch from all classes.",),
    explains=(*SYMPTOMS, *OVERSHOT),
)


def numbers(steps: pd.DataFrame, run: Recording) -> Iterator[dict[str, Any]]:
    """Yield how far the rows of a batch agree, the median over the steps, and how many rows a batch has.

    Args:
        steps: rows of one module, by step.
        run: whose parameters hold the output's bias.
    """
    known = steps[(steps["kind"] == "softmax") & (steps["grad_row_norm"] > 0)]
    if known.empty:
        return
    params = run.params
    own = params[params["name"].str.endswith("bias") & (params["numel"] == known["classes"].iloc[0])]
    if own.empty:
        return
    bias = own[own["name"] == own["name"].iloc[-1]].set_index("step")["grad_norm"].reindex(known.index)
    rows = known["vectors"] * (1 - known["ignored"].fillna(0))
    agree = (bias / (rows * known["grad_row_norm"])) ** 2
    # Of the bias that is added last no more than 1 can come out: what is more, but for sampled rows, is another one's.
    if (agree <= limit(CHECK.code, "bias")).all():
        yield {"quantity": "rows that agree", "value": agree.median(), "n": len(agree), "x": rows.median()}


def mixed(rows: pd.DataFrame, label: str, site: str) -> Iterator[Finding]:
    """Yield GL707.

    Args:
        rows: of one module of the run's summary.
        label: the recording's.
        site: the module.
    """
    agree, entropy = (first(pick(rows, quantity=q)) for q in ("rows that agree", "entropy of the labels"))
    if agree is None or entropy is None or np.isnan(agree["value"]) or agree["x"] < CHECK.limit("rows"):
        return
    of = f" of {place(site)}" if site else ""
    told = f"the gradients at the output{of} of {agree['x']:.0f} rows agree to {percent(agree['value'], 0)}"
    if agree["value"] <= CHECK.limit("most") or entropy["value"] < CHECK.limit("nats"):
        yield CHECK.finding("pass", f"{label}: {told}.", label, agree, causes=(), remedies=())
        return
    claim = (
        f"{label}: batches are not mixed: {told}, though labels differ from step to step by {number(entropy['value'])} "
        "nats."
    )
    yield CHECK.finding("warn", claim, label, agree, born="backward")
