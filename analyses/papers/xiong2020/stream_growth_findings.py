"""What ``xiong2020_stream_growth`` says: GL609 Lemma 2, GL610 the constant of gradient and stream."""

from collections.abc import Iterator

import pandas as pd

from analyses.limits import limit
from analyses.papers.claims import BEGINS
from analyses.papers.xiong2020.words import MORE_NETWORKS, PAPER, all_held, ends, farthest
from analyses.tables import SUMMARY, listed, number, percent, pick, span
from gradlens.analysis import Finding

NAME = "xiong2020_stream_growth"
REFERENCE = f"{PAPER}, Lemmas 1 to 3"

CODES = {
    "GL609": (
        "The stream grows as Lemma 2 says. Before each block's last norm a Post-LN stream has the second moment 1 + v "
        "whatever the block; a Pre-LN stream grows by v to 1 + v a block. v is the FFN's gain, 1/2 for an FFN as wide "
        "as the stream (Lemma 1). The lemma speaks of expectations; room is left for finite width and few seeds."
    ),
    "GL610": (
        "Gradient times stream is one constant. In each block the norm of the gradient of W2 times the root of the "
        "stream's second moment is the same number: the norm divides the gradient by the size of what it normalizes, "
        "and nothing else changes with depth. Value: coefficient of variation over the blocks, corrected for the "
        "seeds' noise."
    ),
}


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding an arrangement for the lemma, and one for the constant.

    Args:
        table: of ``stream_growth.compute``.
    """
    summary = pick(table, panel=SUMMARY)
    return [*_post(pick(summary, variant="post-ln")), *_pre(pick(summary, variant="pre-ln")), *_constant(summary)]


def _post(rows: pd.DataFrame) -> Iterator[Finding]:
    levels = pick(rows, quantity="level")
    if levels.empty:
        return
    room, expected = limit("GL609", "post"), float(pick(rows, quantity="lemma 2")["low"].iloc[0])
    least, most = expected - room, expected + room
    status = all_held(levels, least=least, most=most, outside="fail")
    worst = farthest(levels, (levels["value"] - expected).abs())
    yield Finding(
        code="GL609",
        status=status,
        claim=(
            f"{BEGINS[status]}: the Post-LN stream has the second moment {number(expected)} before each block's last "
            f"norm, at {len(levels)} depths; farthest off in networks of {worst['x']:.0f} blocks, with "
            f"{number(worst['value'])}{span(worst)}."
        ),
        analysis=NAME,
        subject="Post-LN",
        **ends(worst),
        unit="second moment",
        expected=expected,
        expected_from="Lemma 2 at this network's FFN: 1 + v",
        threshold=f"Post-LN: {least:g} to {most:g}, mean over the blocks, at every depth",
        causes=_CAUSES,
        remedies=(MORE_NETWORKS, "Compare the initialization with the paper's."),
        reference=f"{PAPER}, Lemma 2",
        details={row["group"]: float(row["value"]) for _, row in levels.iterrows()},
    )


def _pre(rows: pd.DataFrame) -> Iterator[Finding]:
    beyond = pick(rows, quantity="beyond the range")
    if beyond.empty:
        return
    most = 1 + limit("GL609", "pre")
    status = all_held(beyond, most=most, outside="fail")
    worst = farthest(beyond, beyond["value"])
    off = f"{percent(worst['value'] - 1)} beyond" if worst["value"] > 1 else f"{percent(1 - worst['value'])} inside"
    yield Finding(
        code="GL609",
        status=status,
        claim=(
            f"{BEGINS[status]}: the Pre-LN stream stays within Lemma 2's range in every block of networks of "
            f"{listed(str(group).split()[0] for group in beyond['group'])} blocks; nearest to its end, after block "
            f"{worst['x']:.0f} of {worst['group'].split()[0]}, the mean is {off} it."
        ),
        analysis=NAME,
        subject="Pre-LN",
        **ends(worst),
        expected="at most 1",
        expected_from="Lemma 2: 1 + v·l to 1 + (1 + v)·l after l blocks",
        threshold=f"Pre-LN: at most {most:g} times beyond an end of the range, in every block",
        causes=_CAUSES,
        remedies=(MORE_NETWORKS, "Compare the initialization with the paper's."),
        reference=f"{PAPER}, Lemma 2",
    )


_CAUSES = (
    "Another initialization, activation or branch scale than the lemma's.",
    "Dropout, which raises second moments by 1/(1 − p).",
    "Few seeds or a narrow stream: the lemma speaks of expectations.",
)


def _constant(summary: pd.DataFrame) -> Iterator[Finding]:
    most = limit("GL610", "most")
    for label, rows in pick(summary, quantity="variation of c").groupby("label", sort=False):
        own = pick(summary, label=str(label), quantity="variation of c, theory").set_index("group")["value"]
        status = all_held(rows, most=most, outside="warn")
        worst = farthest(rows, rows["value"])
        says = {"pass": "is one constant over the blocks", "warn": "is no constant over the blocks"}
        yield Finding(
            code="GL610",
            status=status,
            claim=(
                f"{label} encoders: ‖dL/dW2‖·√q {says.get(status, 'may or may not be constant over the blocks')}: "
                f"beyond the seeds' noise it varies by {percent(worst['value'])}{span(worst, percent)} over "
                f"{worst['x']:.0f} blocks, where it varies most"
                + (f"; theory gives {percent(own[worst['group']])}." if worst["group"] in own else ".")
            ),
            analysis=NAME,
            subject=str(label),
            **ends(worst),
            expected=0.0,
            expected_from="equal forward and backward gain of each branch (exact for FFNs, near for attention)",
            threshold=f"at most {most:g} at every depth",
            causes=(
                "Tokens that grow alike with depth, so that attention's gain changes.",
                "Labels that depend on the tokens, or tokens that repeat: gradients of one sequence are alike.",
            ),
            remedies=(MORE_NETWORKS, "Compare with what theory says for this very network."),
            reference=f"after {PAPER}, Lemmas 2 and 3",
            details={row["group"]: float(row["value"]) for _, row in rows.iterrows()},
        )
