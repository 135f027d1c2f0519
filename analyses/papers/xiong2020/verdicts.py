"""What ``xiong2020_claims`` says of the paper's claims about the warm-up: GL600 to GL604."""

from typing import Any, NamedTuple

import pandas as pd

from analyses.papers.claims import BEGINS, PARTICIPLE, tally
from analyses.papers.xiong2020.runs import setting_name
from analyses.papers.xiong2020.words import PAPER, farthest, signed
from analyses.tables import pick
from gradlens.analysis import Finding, Status

NAME = "xiong2020_claims"

CODES = {
    "GL600": (
        "Post-LN needs a warm-up with Adam. Trained with the full learning rate from the first step on, a Post-LN "
        "network ends with a held-out loss that is higher by more than the margin than with the whole warm-up, or "
        "diverges. Pairs of runs of the same seed decide, at each learning rate."
    ),
    "GL601": (
        "Post-LN needs a warm-up with SGD too. The same with plain SGD: the paper concludes that it is not Adam's "
        "uncertain second moments in the first steps that call for a warm-up, but the arrangement."
    ),
    "GL602": (
        "The length of the warm-up matters. A warm-up of an eighth of the whole one ends with a held-out loss that is "
        "higher by more than the margin: in the paper's translation 31.16 BLEU and 2.77 at the two learning rates, "
        "where the whole one reaches about 34."
    ),
    "GL603": (
        "Pre-LN needs no warm-up. Trained with the full learning rate from the first step on, a Pre-LN network ends no "
        "worse than with the whole warm-up, or by less than the margin."
    ),
    "GL604": (
        "Pre-LN without warm-up equals Post-LN with it. At the same optimizer and learning rate, Pre-LN without a "
        "warm-up ends no worse than Post-LN with the whole one, or by less than the margin."
    ),
}


class Words(NamedTuple):
    """A claim in words: the heading of its panel, what it says, and what the paper has for it."""

    title: str
    says: str
    expected: str
    expected_from: str


WORDS = {
    "GL600": Words(
        "Post-LN needs a warm-up with Adam",
        "without the warm-up, Post-LN with Adam ends worse",
        "8.45 BLEU (34 with it)",
        "section 3.1 and Fig. 2 (IWSLT14 De-En, learning rate 1e-3)",
    ),
    "GL601": Words(
        "Post-LN needs a warm-up with SGD too",
        "without the warm-up, Post-LN with SGD ends worse",
        "about 0 BLEU",
        "section 3.1 and Fig. 2 (15 epochs)",
    ),
    "GL602": Words(
        "The length of the warm-up matters",
        "with a short warm-up, Post-LN ends worse than with the whole one",
        "2.77 and 31.16 BLEU",
        "section 3.1 and Fig. 2: with 500 steps at 1e-3 and 5e-4, where 4,000 reach about 34",
    ),
    "GL603": Words(
        "Pre-LN needs no warm-up",
        "without the warm-up, Pre-LN ends no worse than with it",
        "about 34 BLEU",
        "Fig. 4",
    ),
    "GL604": Words(
        "Pre-LN without warm-up equals Post-LN with it",
        "without a warm-up, Pre-LN ends no worse than Post-LN with the whole one",
        "both about 34 BLEU",
        "Fig. 4",
    ),
}
_CAUSES = (
    "Learning rates that are low for this network: a narrower one bears more.",
    "Short training: what a bad start costs may not yet show, or not yet be made up for.",
    "Few seeds: the intervals are wide, and with one seed there is none.",
    "The data, the network and its width are not the paper's.",
)
_REMEDIES = ("Train more seeds (--seeds).", "Train longer and larger (--budget medium or --budget paper).")


def judge(table: pd.DataFrame) -> list[Finding]:
    """Return one finding a claim; none where no run was made for any.

    Args:
        table: of ``claims.compute``.
    """
    return [] if table.empty else [_judged(code, pick(table, code=code)) for code in WORDS]


def _judged(code: str, rows: pd.DataFrame) -> Finding:
    """More than half of the settings must support a claim, more than half contradict it for it to fail."""
    words = WORDS[code]
    if rows.empty:
        claim = f"{words.title}: not tested, no two runs share task, optimizer, learning rate and seed as it asks."
        return Finding(code=code, status="not applicable", claim=claim, analysis=NAME)
    told = {v: [_told(row) for _, row in rows[rows["verdict"] == v].iterrows()] for v in PARTICIPLE}
    status: Status = "inconclusive"
    if len(told["supports"]) > len(rows) / 2:
        status = "pass"
    elif len(told["contradicts"]) > len(rows) / 2:
        status = "fail"
    one = farthest(rows, -rows["value"]) if rows["value"].notna().all() else None
    value, low, high = (None if one is None or pd.isna(one[c]) else float(one[c]) for c in ("value", "low", "high"))
    seeds, bar = rows["n"].max(), float(rows["bar"].iloc[0])
    return Finding(
        code=code,
        status=status,
        claim=(
            f"{_begins(status, rows)}: {words.says}: {'; '.join(tally(told, len(rows), 'in setting'))}; {seeds:.0f} "
            f"seed{'s' if seeds > 1 else ''} a setting."
        ),
        analysis=NAME,
        value=value,
        low=low,
        high=high,
        unit="% of the held-out loss",
        expected=words.expected,
        expected_from=f"{PAPER}, {words.expected_from}",
        threshold=(
            f"a setting supports where the 95 % interval of the paired difference lies above {signed(bar, 0)} % "
            "of the held-out loss with the whole warm-up, contradicts where it lies below; with a divergence, where "
            "all seeds agree; more than half of the settings must agree"
        ),
        causes=_CAUSES,
        remedies=_REMEDIES,
        reference=PAPER,
        details={name_of(row): _details(row) for _, row in rows.iterrows()},
    )


def _begins(status: Status, rows: pd.DataFrame) -> str:
    mixed = status == "inconclusive" and len(set(rows["verdict"])) > 1 and "undecided" not in set(rows["verdict"])
    return "Mixed" if mixed else BEGINS[status]


def _told(row: pd.Series) -> str:
    """Name a setting, with how much lower its favoured loss is, or which runs diverged."""
    if row["diverged"] > 0:
        return f"{name_of(row)}: runs diverged in {row['diverged']:.0f} of {row['n']:.0f} pairs"
    return f"{name_of(row)}: {'+' if row['value'] > 0 else ''}{signed(row['value'], 1)} %"


def name_of(row: pd.Series) -> str:
    """Name the task, optimizer and learning rate of a row."""
    return setting_name(row["task"], row["optimizer"], row["lr"])


def _details(row: pd.Series) -> dict[str, Any]:
    return {str(key): None if pd.isna(cell) else cell for key, cell in row.items() if key not in ("code", "bar")}
