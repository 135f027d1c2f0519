"""Advice on a model's blocks and its learning rate, only where a recording does not show that it has been followed."""

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from analyses.depth import blocks
from analyses.tables import pick
from gradlens.recording import Recording
from gradlens.theory.arrangements import ARRANGEMENTS

#: Networks without residual blocks.
_WITHOUT_SKIP = "plain"
PRE_LN = "Take the norm before the branch (Pre-LN)."
#: Of recordings from before models said whether their skip is sound: what is known of the arrangement's name.
_SOUND_BY_NAME = frozenset(ARRANGEMENTS) - {"post-ln", "b2t"} | {_WITHOUT_SKIP}
#: Placements of norms on branches, past which the skip is the identity.
_ON_BRANCHES = frozenset({"pre_branch", "in_branch", "qk", "post_branch"})
#: A learning rate that begins below this share of its largest has been warmed up.
_WARMED = 0.5


def known(recording: Recording) -> Iterator[dict[str, Any]]:
    """Yield what a recording shows of the model's arrangement and of its warm-up, as rows of a summary.

    Args:
        recording: of any kind.
    """
    name, sound = _arrangement(recording)
    yield {"quantity": "arrangement", "group": name, "value": float(sound)}
    yield {"quantity": "warmed up", "group": "yes" if _is_warmed_up(recording) else ""}


def arrange_otherwise(rows: pd.DataFrame, *advice: str) -> tuple[str, ...]:
    """Return the advice on norms and skips; none for a model that has followed it, or of which that is not known.

    Args:
        rows: of a summary that holds those of ``known``.
        advice: sentences.
    """
    return () if pick(rows, quantity="arrangement")["value"].eq(1).all() else advice


def lower_the_rate(rows: pd.DataFrame) -> str:
    """Return the advice on the learning rate, without a warm-up where there was one.

    Args:
        rows: of a summary that holds those of ``known``.
    """
    return (
        "Lower the learning rate, or warm up for longer." if _warmed(rows) else "Warm up, or lower the learning rate."
    )


def lacks_warm_up(rows: pd.DataFrame) -> bool:
    """Whether norms stand on the stream (Post-LN), where a warm-up is needed, and nothing shows that there was one.

    Args:
        rows: of a summary that holds those of ``known``.
    """
    return not _warmed(rows) and bool(pick(rows, quantity="arrangement")["value"].eq(0).any())


def _warmed(rows: pd.DataFrame) -> bool:
    return bool((pick(rows, quantity="warmed up")["group"] == "yes").any())


def _arrangement(recording: Recording) -> tuple[str, bool]:
    """Return a model's arrangement, "" where nothing tells, and whether there is nothing to advise.

    That is so where its skip is sound, where it has none, and where nobody knows. The arrangement is what the model
    says, else what it is known by, else what its norms show.
    """
    model = recording.meta.get("model") or {}
    if "skip_is_sound" in model:
        return str(model.get("arrangement") or ""), bool(model["skip_is_sound"])
    for name in (str(recording.meta.get("variant") or "").partition("/")[0], model.get("arrangement")):
        if name in ARRANGEMENTS or name == _WITHOUT_SKIP:
            return str(name), name in _SOUND_BY_NAME
    if blocks(recording).empty:
        return _WITHOUT_SKIP, True
    sites = recording.sites
    placements = set(sites.loc[(sites["kind"] == "norm") & sites["block"].notna(), "placement"])
    if "post_add" in placements:
        return ("", True) if "pre_branch" in placements else ("post-ln", False)
    shown = placements <= _ON_BRANCHES and "pre_branch" in placements
    return ("peri-ln" if "post_branch" in placements else "pre-ln") if shown else "", True


def _is_warmed_up(recording: Recording) -> bool:
    """Whether schedule or settings say so, the label does, or the learning rate rose from its first recorded step."""
    meta, steps = recording.meta, recording.steps
    if meta.get("schedule"):
        return bool(meta["schedule"] == "warm-up")
    if (meta.get("training") or {}).get("warmup"):
        return True
    if re.search(r"(?<!no )(?<!without )(?<!no-)\bwarm-?up", recording.label.lower()):
        return True
    rate = steps.sort_values("step")["lr"].dropna()
    return len(rate) > 0 and bool(rate.iloc[0] < _WARMED * rate.max())
