"""What of a recording is to be judged: a row a place that is not as its like, and how many places were looked at."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.architecture import measured, start
from analyses.limits import limit
from analyses.tables import ABSENT, SUMMARY, identity, tidy
from gradlens.recording import Recording

Row = dict[str, Any]
#: The quantity of recordings that tell how the model is wired.
TOLD = "told"
#: Stands in ``group`` where a row counts the places that were looked at (``n``).
LOOKED_AT = ""
#: A stream that is taken away, be it times a number or a parameter.
_TAKEN = re.compile(r" - (\S+·)?x$")


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return for each recording and code (``quantity``) the places that are odd (``group``), and how many there are.

    Args:
        recordings: of any kind.
    """
    return tidy({**identity(r), "panel": SUMMARY, **row} for r in recordings for row in _rows(r))


def _rows(recording: Recording) -> Iterator[Row]:
    told, sites = recording.meta.get("structure"), recording.sites
    if told:
        places, blocks = (dict(zip(sites["site"], sites[column], strict=True)) for column in ("placement", "block"))
        yield {"quantity": TOLD}
        yield from _skips(told.get("siblings", ()))
        yield from _signs(told.get("additions", ()))
        yield from _twice(told.get("twice", ()), places, blocks)
        yield from _ends(told.get("ends", ()))
        yield from _axes(told.get("streams", ()))
    yield from measured.evaluation(recording)
    yield from measured.detached(recording)
    yield from measured.stream(recording)
    yield from start.numbers(recording)


def _skips(families: Sequence[Mapping[str, int]]) -> Iterator[Row]:
    """GL801: modules that hold fewer additions than most of their equals (``low``)."""
    judged = [family for family in families if len(family) >= limit("GL801", "equals")]
    odd: dict[str, int] = {}
    for family in judged:
        usual, times = Counter(family.values()).most_common(1)[0]
        if times > len(family) / 2:
            odd |= {path: usual for path, held in family.items() if held < usual}
    held_by = {path: held for family in judged for path, held in family.items()}
    for path, usual in odd.items():
        if not any(other.startswith(f"{path}.") for other in odd):  # which is the one at fault
            yield {"quantity": "GL801", "group": path, "value": held_by[path], "low": usual}
    yield {"quantity": "GL801", "n": len(held_by)}


def _signs(stacks: Sequence[Sequence[Sequence[str]]]) -> Iterator[Row]:
    """GL802: additions that take the stream away."""
    count = 0
    for stack in stacks:
        for holder, written in stack:
            count += 1
            if written.startswith("-") or _TAKEN.search(written):
                yield {"quantity": "GL802", "group": holder, "stack": written}
    yield {"quantity": "GL802", "n": count}


def _twice(pairs: Sequence[Sequence[str]], places: Mapping[str, str], blocks: Mapping[str, float]) -> Iterator[Row]:
    """GL803: a norm (``group``) that reads nothing but another one (``stack``)."""
    for first, second in pairs:
        parents = [f"{site.rpartition('.')[0]}." for site in (first, second)]
        # A part of a network may end with a norm, and the next begin with one, but not inside of one block.
        outer = parents[1] == "." or parents[0].startswith(parents[1])
        inside = blocks.get(first) == blocks.get(second) and parents[1].startswith(parents[0])
        # And Post-LN's last block ends with a norm, whether or not the stack has one of its own.
        own = parents[0] == parents[1] or (places.get(first), places.get(second)) != ("post_add", "final")
        if (outer or inside) and own:
            yield {"quantity": "GL803", "group": second, "stack": first}
    norms = [site for site, place in places.items() if isinstance(place, str) and place]
    yield {"quantity": "GL803", "n": len(norms)}


def _ends(ends: Sequence[Sequence[Any]]) -> Iterator[Row]:
    """GL804: stacks of which every branch begins with a norm, and that go into a product unnormalized."""
    judged = [(norm, meets) for norm, meets, additions in ends if additions >= limit("GL804", "additions")]
    for norm, meets in judged:
        if meets == "product":
            yield {"quantity": "GL804", "group": norm}
    yield {"quantity": "GL804", "n": sum(meets != "output" for _, meets in judged)}


def _axes(streams: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """GL805: norms on a stream that normalize something else (``stack``) than its features (``value``)."""
    count = 0
    for stream in streams:
        norms = {site: [int(size) for size in sizes] for site, sizes in stream["norms"].items()}
        count += len(norms)
        features = stream.get("features")
        wide = [site for site, sizes in norms.items() if stream.get("last") and sum(size > 1 for size in sizes) > 1]
        if features is None:  # as most of them do
            wide, (features, times) = [], Counter(sizes[-1] for sizes in norms.values()).most_common(1)[0]
            if len(norms) - times > limit("GL805", "odd") * len(norms):
                continue
        other = [site for site, sizes in norms.items() if len(sizes) == 1 and sizes[0] != features]
        for site in (*wide, *other):
            yield {"quantity": "GL805", "group": site, "stack": " × ".join(map(str, norms[site])), "value": features}
    yield {"quantity": "GL805", "n": count}


def show(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return, a row a recording and a column a code, how many places were looked at, and how many are odd.

    Args:
        table: of ``compute``.
    """
    judged = table[table["quantity"].str.startswith("GL")]
    judged = judged.assign(odd=judged["group"] != LOOKED_AT)
    counts = judged.groupby(["label", "quantity"], sort=False).agg(looked=("n", "sum"), odd=("odd", "sum"))
    said = [f"{looked:.0f}" + (f", {odd} odd" if odd else "") for looked, odd in counts.itertuples(index=False)]
    shown = pd.Series(said, counts.index, dtype=object).unstack("quantity", fill_value=ABSENT)
    shown = shown.reindex(index=judged["label"].unique(), columns=sorted(map(str, shown)))
    shown = shown.rename_axis("recording").reset_index()
    shown.columns.name = None
    return {"How many places were looked at for each code, and how many are odd.": shown} if len(shown) else {}
