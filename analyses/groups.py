"""Recordings that say the same, named together: what is true of all is said once."""

from collections.abc import Sequence

import pandas as pd

#: Kind to what several such recordings are called.
_KINDS = {"init": "models at initialization", "training": "training runs", "attached": "recorded runs"}
_MOST_NAMES = 3


def name_of(labels: Sequence[str], recordings: pd.DataFrame) -> str:
    """Name recordings by what they share, as ``all 4 training runs`` or ``pre-ln (3 recordings)``, else by label.

    Args:
        labels: of the recordings that are meant.
        recordings: all there are, with the columns ``label``, ``variant`` and ``kind``.
    """
    known = recordings[["label", "variant", "kind"]].drop_duplicates("label")
    meant = known[known["label"].isin(labels)]
    kinds = set(meant["kind"])
    if len(meant) > 1:
        of_kind = known[known["kind"].isin(kinds)]
        if len(kinds) == 1 and len(of_kind) == len(meant):
            return f"{_all(len(meant))} {_KINDS.get(kinds.pop(), 'recordings')}"
        if len(meant) == len(known):
            return f"{_all(len(meant))} recordings"
        variants = set(meant["variant"])
        if len(variants) == 1 and (known["variant"].isin(variants)).sum() == len(meant):
            return f"{variants.pop()} ({len(meant)} recordings)"
    names = list(meant["label"])
    if len(names) > _MOST_NAMES:
        names = [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
    if any("," in name for name in names):
        return "; ".join(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _all(count: int) -> str:
    return "both" if count == 2 else f"all {count}"
