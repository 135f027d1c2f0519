"""What ``xiong2020_amplification_by_depth`` says: GL612 Post-LN, Pre-LN and Admin under noise in the weights."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from analyses.limits import held_against, limit
from analyses.papers.claims import BEGINS
from analyses.papers.xiong2020.words import MORE_PROBED, all_held, ends, farthest, signed
from analyses.tables import SUMMARY, first, number, pick, span
from gradlens.analysis import Finding

NAME = "xiong2020_amplification_by_depth"
REFERENCE = "Liu et al. 2020 (2004.08249), Theorem 2"

CODES = {
    "GL612": (
        "Depth amplifies noise in Post-LN. Moving the matrices of all blocks by a small share of their size changes "
        "the output of a Post-LN network by an amount that grows like the number of blocks, of a Pre-LN network like "
        "its logarithm; Admin, Post-LN with a scaled skip path, behaves as Pre-LN. Liu et al. take this, and not the "
        "size of gradients, for the reason why Post-LN needs a warm-up."
    ),
}
_CAUSES = (
    "Attention whose tokens become alike with depth: the growth is then faster than its order.",
    "Noise that is not small: the change is no longer in proportion to it.",
)
#: What all of them share.
_finding = partial(Finding, code="GL612", analysis=NAME, causes=_CAUSES, remedies=(MORE_PROBED,), reference=REFERENCE)


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return a finding for each of Post-LN, Pre-LN and Admin that was measured.

    Args:
        table: of ``amplification_by_depth.compute``.
    """
    summary = pick(table, panel=SUMMARY)
    return [*_post(summary), *_pre(summary), *_admin(summary)]


def _post(summary: pd.DataFrame) -> Iterator[Finding]:
    row = first(pick(summary, variant="post-ln", quantity="slope"))
    if row is None:
        return
    least, most = limit("GL612", "post_least"), limit("GL612", "post_most")
    status = held_against(row["low"], row["high"], least=least, most=most, outside="fail")
    yield _finding(
        status=status,
        claim=(
            f"{BEGINS[status]}: in Post-LN the amplification grows like the number of blocks: like its power "
            f"{signed(row['value'])}{span(row, signed)} up to {row['x']:.0f} blocks."
        ),
        subject="Post-LN",
        **ends(row),
        expected=1.0,
        expected_from=f"{REFERENCE}: O(N)",
        threshold=f"Post-LN: a power of {least:g} to {most:g}",
    )


def _pre(summary: pd.DataFrame) -> Iterator[Finding]:
    """The logarithm is held against the factor between the ends, whatever they are: ln N's is 2.5 from 4 to 32."""
    row = first(pick(summary, variant="pre-ln", quantity="deepest/shallowest"))
    if row is None:
        return
    shallow, deep = float(row["group"]), float(row["x"])
    logarithm = float(np.log(deep) / np.log(shallow))
    least, most = (limit("GL612", name) * logarithm for name in ("pre_least", "pre_most"))
    status = held_against(row["low"], row["high"], least=least, most=most, outside="fail")
    yield _finding(
        status=status,
        claim=(
            f"{BEGINS[status]}: in Pre-LN the amplification grows like the logarithm of the number of blocks: "
            f"{number(row['value'])} times from {shallow:.0f} to {deep:.0f} blocks{span(row)}, where the logarithm "
            f"grows {number(logarithm)} times."
        ),
        subject="Pre-LN",
        **ends(row),
        expected=logarithm,
        expected_from=f"{REFERENCE}: O(log N)",
        threshold=f"Pre-LN: {least:.2g} to {most:.2g} times from {shallow:.0f} to {deep:.0f} blocks",
    )


def _admin(summary: pd.DataFrame) -> Iterator[Finding]:
    rows, room = pick(summary, variant="admin", quantity="over Pre-LN"), limit("GL612", "admin")
    if rows.empty:
        return
    status = all_held(rows, least=1 - room, most=1 + room, outside="fail")
    worst = farthest(rows, (rows["value"] - 1).abs())
    yield _finding(
        status=status,
        claim=(
            f"{BEGINS[status]}: Admin amplifies as Pre-LN does, at {len(rows)} depths; farthest off at "
            f"{worst['x']:.0f} blocks, with {number(worst['value'])} times Pre-LN's{span(worst)}."
        ),
        subject="Admin",
        **ends(worst),
        expected=1.0,
        expected_from=f"{REFERENCE}: Admin's skip path is scaled to this end",
        threshold=f"Admin: {1 - room:g} to {1 + room:g} times Pre-LN's at every depth",
    )
