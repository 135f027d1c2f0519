"""What ``xiong2020_last_block_by_depth`` says: GL607 the slopes of Theorem 1, GL608 Pre-LN over Post-LN."""

from collections.abc import Iterator

import pandas as pd

from analyses.limits import held_against, limit
from analyses.papers.claims import BEGINS
from analyses.papers.xiong2020.words import MORE_NETWORKS, PAPER, ends, farthest, signed, together
from analyses.tables import SUMMARY, first, number, pick, span
from gradlens.analysis import Finding

NAME = "xiong2020_last_block_by_depth"
REFERENCE = f"{PAPER}, Theorem 1 and Fig. 3(c, d)"

CODES = {
    "GL607": (
        "The last block's gradient against depth. Theorem 1: with Post-LN the gradient of the last block's output "
        "matrix does not depend on the number of blocks L, with Pre-LN it falls like 1/√L. Value: the slope of the "
        "logarithm over that of L, least squares, mean over seeds. Pre-LN's slope nears −1/2 from above, for its "
        "stream starts at 1 and grows by about one a block."
    ),
    "GL608": (
        "Pre-LN's last gradient over Post-LN's. The norm behind the last block divides the gradient by the size of "
        "what it normalizes. The ratio is therefore √(q_Post/q_Pre), with q the second moments of the two streams "
        "where their last norm reads them; measured at every depth, with the streams as measured."
    ),
}
_WORDS = {
    "encoder-decoder": (
        "the decoder of encoder-decoders",
        "Fig. 3(c, d): about 1.6 at every depth (Post-LN), falling (Pre-LN)",
    ),
    "encoder": ("encoders alone", "Theorem 1"),
}


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding an arrangement and kind of network for the slopes, and one a kind for the ratio.

    Args:
        table: of ``last_block_by_depth.compute``.
    """
    return [*_slopes(table), *_ratios(table)]


def _slopes(table: pd.DataFrame) -> Iterator[Finding]:
    for _, row in pick(table, panel=SUMMARY, quantity="slope").iterrows():
        post, (network, source) = row["variant"] == "post-ln", _WORDS[row["group"]]
        most = limit("GL607", "post") if post else limit("GL607", "pre_most")
        least = -most if post else limit("GL607", "pre_least")
        status = held_against(row["low"], row["high"], least=least, most=most, outside="fail")
        theory = first(pick(table, variant=row["variant"], group=row["group"], quantity="slope, theory"))
        beside = "" if theory is None else f"; theory gives {signed(theory['value'], 3)} for these networks"
        says = "does not depend on the number of blocks" if post else "falls about like 1/√L"
        blocks = pick(table, panel=row["group"], variant=row["variant"], quantity="measured")["x"]
        yield Finding(
            code="GL607",
            status=status,
            claim=(
                f"{BEGINS[status]}: in {network}, {row['label']}'s gradient of the last W2 {says}: its slope over "
                f"{blocks.min():.0f} to {blocks.max():.0f} blocks is {signed(row['value'], 3)}"
                f"{span(row, _three)}{beside}."
            ),
            analysis=NAME,
            subject=f"{row['label']}, {row['group']}",
            **ends(row),
            expected=0.0 if post else -0.5,
            expected_from=f"the order in L of {source}",
            threshold=f"{row['label']}: {signed(least)} to {signed(most)}",
            causes=(
                "Few blocks: 1 + c·L is no power law yet, and Pre-LN's slope is flatter than −1/2.",
                "Branches that are scaled or initialized otherwise than in the paper.",
            ),
            remedies=(MORE_NETWORKS, "Measure deeper networks (--budget medium)."),
            reference=REFERENCE,
        )


def _three(value: float) -> str:
    return signed(value, 3)


def _ratios(table: pd.DataFrame) -> Iterator[Finding]:
    """GL608: every depth is held against the law; the one that is farthest off is told."""
    room = limit("GL608", "room")
    for kind, rows in pick(table, panel=SUMMARY, quantity="ratio over law").groupby("group", sort=False):
        held = [
            held_against(low, high, least=1 - room, most=1 + room, outside="fail")
            for low, high in zip(rows["low"], rows["high"], strict=True)
        ]
        status = together(held)
        worst = farthest(rows, (rows["value"] - 1).abs())
        yield Finding(
            code="GL608",
            status=status,
            claim=(
                f"{BEGINS[status]}: in {_WORDS[str(kind)][0]}, Pre-LN's last gradient over Post-LN's is √(q Post / q "
                f"Pre) at {len(rows)} depth{'s' if len(rows) > 1 else ''}; farthest off at {worst['x']:.0f} blocks, "
                f"where it is {number(worst['value'])} times that{span(worst)}."
            ),
            analysis=NAME,
            subject=str(kind),
            **ends(worst),
            expected=1.0,
            expected_from="the law ‖dL/dW2‖ = c/√q, one c for both, with the streams as measured",
            threshold=f"{1 - room:g} to {1 + room:g} at every depth",
            causes=(
                "Dropout, which scales the branches but not the skip.",
                "Few seeds: the ratio of single pairs scatters by some per cent.",
            ),
            remedies=(MORE_NETWORKS,),
            reference=f"{PAPER}, after Theorem 1 and Lemmas 2 and 3",
            details={f"{row['x']:.0f} blocks": float(row["value"]) for _, row in rows.iterrows()},
        )
