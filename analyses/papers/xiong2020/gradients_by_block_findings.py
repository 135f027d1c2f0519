"""What ``xiong2020_gradients_by_block`` says: GL605 the gradient over the blocks, GL606 the gradient after warm-up."""

from collections.abc import Iterator

import pandas as pd

from analyses.limits import held_against, limit
from analyses.papers.claims import BEGINS
from analyses.papers.xiong2020.measured import PAPER as NAMES
from analyses.papers.xiong2020.measured import W2
from analyses.papers.xiong2020.words import MORE_NETWORKS, MORE_SEEDS, PAPER, ends
from analyses.tables import SUMMARY, first, number, pick, span
from gradlens.analysis import Finding

NAME = "xiong2020_gradients_by_block"
REFERENCE = f"{PAPER}, Fig. 3(a, b) and appendix F"

CODES = {
    "GL605": (
        "Gradients grow with the block in Post-LN. At initialization the gradient of the FFN's output matrix is "
        "larger in the last block of a Post-LN decoder than in its first, by a factor that grows exponentially with "
        "depth; in a Pre-LN decoder all blocks are alike to within a factor of two. In a Post-LN encoder it is flat: "
        "there the paper's bound declines, and the exact computation does not."
    ),
    "GL606": (
        "Gradients are small after the warm-up. In a Post-LN network that was trained with the whole warm-up, the "
        "gradient of the last decoder block's output matrix just after the warm-up, over what it was at the first "
        "step. The paper shows it as very small, so that the full learning rate no longer does harm."
    ),
}
#: Arrangement and stack to the names of the limits in GL605, and what the paper has for it.
_CASES = {
    ("post-ln", "decoder"): (
        ("decoder_post_least", "decoder_post_most"),
        "grows with the block",
        "grows with the block (Fig. 3)",
    ),
    ("pre-ln", "decoder"): (
        ("decoder_pre_least", "decoder_pre_most"),
        "is about the same in all blocks",
        "about the same in all blocks (Fig. 3)",
    ),
    ("post-ln", "encoder"): (
        ("encoder_post_least", "encoder_post_most"),
        "is about the same in all blocks",
        "a bound that falls by √(2/3) a block towards the input; exactly computed, it is flat",
    ),
}


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding a case at initialization, and one a learning rate for the warm-up.

    Args:
        table: of ``gradients_by_block.compute``.
    """
    return [*_by_block(pick(table, panel=SUMMARY, group=W2)), *_after(pick(table, panel=SUMMARY, group=W2))]


def _by_block(summary: pd.DataFrame) -> Iterator[Finding]:
    for (arrangement, stack), (limits, says, paper) in _CASES.items():
        own = pick(summary, variant=arrangement, stack=stack)
        row, theory = (first(pick(own, quantity=q)) for q in ("last/first", "last/first, theory"))
        if row is None:
            continue
        least, most = (limit("GL605", name) for name in limits)
        status = held_against(row["low"], row["high"], least=least, most=most, outside="fail")
        known = theory is not None and pd.notna(theory["value"])
        beside = f"; theory gives {number(theory['value'])}" if theory is not None and known else ""
        yield Finding(
            code="GL605",
            status=status,
            claim=(
                f"{BEGINS[status]}: the gradient of W2 in the {NAMES[arrangement]} {stack} {says}: the last of "
                f"{row['x']:.0f} blocks has {number(row['value'])} times the first one's{span(row)}{beside}."
            ),
            analysis=NAME,
            subject=f"{NAMES[arrangement]} {stack}",
            **ends(row),
            expected=float(theory["value"]) if theory is not None and known else paper,
            expected_from=f"exact theory for this network; the paper: {paper}" if known else "the paper",
            threshold=f"{NAMES[arrangement]} {stack}: {least:g} to {most:g}",
            causes=(
                "Cross-attention: its gradient reaches the decoder's stream through the queries alone.",
                "Another depth, width or vocabulary than the limits are for: the decline is one factor a block.",
                "A branch that is scaled or initialized otherwise than in the paper.",
            ),
            remedies=(MORE_NETWORKS, "Compare with what theory says for this very network."),
            reference=REFERENCE,
        )


def _after(summary: pd.DataFrame) -> Iterator[Finding]:
    most = limit("GL606", "most")
    for _, row in pick(summary, quantity="after/first").iterrows():
        status = held_against(row["low"], row["high"], most=most, outside="fail")
        yield Finding(
            code="GL606",
            status=status,
            claim=(
                f"{BEGINS[status]}: {row['label']}: after the warm-up the gradient of the last decoder block's W2 is "
                f"{number(row['value'])} times that of the first step{span(row)}."
            ),
            analysis=NAME,
            subject=str(row["label"]),
            **ends(row),
            expected="very small",
            expected_from="the paper, Fig. 3(a, b), in words",
            threshold=f"at most {most:g} times the first step's",
            causes=(
                "Norms of single batches: as the mean gradient falls, what is left is the noise of the batch.",
                "A warm-up too short for this network: the loss has hardly fallen where it ends.",
                "A network that has not learned, because its learning rate is too high for it.",
            ),
            remedies=("Train longer and larger (--budget medium or --budget paper).", MORE_SEEDS),
            reference=REFERENCE,
        )
