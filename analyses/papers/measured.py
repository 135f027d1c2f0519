"""What the recordings of Transformers hold: which networks there are; gradients and streams, block by block."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.depth import stream_by_depth
from gradlens.recording import Recording

#: Arrangements of blocks, and how they are printed; in the order of tables and figures.
ARRANGEMENTS = {
    "post-ln": "Post-LN",
    "pre-ln": "Pre-LN",
    "peri-ln": "Peri-LN",
    "deepnorm": "DeepNorm",
    "admin": "Admin",
    "layernorm-scaling": "LayerNorm Scaling",
    "mix-ln": "Mix-LN",
    "b2t": "B2T",
    "sub-ln": "Sub-LN",
    "norm-free": "without norms",
}
#: The FFN's matrices, by their names inside a block.
W1, W2 = "ffn.w1.weight", "ffn.w2.weight"
#: Path of a parameter inside a block: its stack (empty where there is one), the block's number from 0, its name.
_PATH = r"^(?:(?P<stack>encoder|decoder)\.)?blocks\.(?P<block>\d+)\.(?P<group>.+)$"


def model(recording: Recording) -> Mapping[str, Any]:
    """Return what the recording says of its model."""
    return recording.meta.get("model") or {}


def arrangement(recording: Recording) -> str:
    """Return the arrangement of the recording's blocks."""
    return str(model(recording).get("arrangement", ""))


def depth(recording: Recording) -> int:
    """Return the number of blocks of one stack."""
    return int(model(recording).get("blocks") or 0)


def initial(recordings: Sequence[Recording], kind: str = "", *, probe: str = "") -> list[Recording]:
    """Return the Transformers at initialization, by arrangement and depth.

    Args:
        recordings: of any kind.
        kind: ``encoder``, ``decoder`` or ``encoder-decoder``; all where empty.
        probe: only those that hold readings of this probe.
    """
    found = [
        recording
        for recording in recordings
        if recording.meta.get("kind") == "init"
        and arrangement(recording) in ARRANGEMENTS
        and kind in ("", model(recording).get("kind"))
        and (not probe or (recording.probes["probe"] == probe).any())
    ]
    places = list(ARRANGEMENTS)
    return sorted(found, key=lambda r: (places.index(arrangement(r)), depth(r)))


def widest(recordings: Sequence[Recording]) -> list[Recording]:
    """Return those of the greatest width: narrower ones are there for a probe that would take too long on these."""
    most = max((int(model(recording)["width"]) for recording in recordings), default=0)
    return [recording for recording in recordings if int(model(recording)["width"]) == most]


def of(recording: Recording) -> dict[str, str]:
    """Return the columns of a row that say whose number it is."""
    own = arrangement(recording)
    return {"label": ARRANGEMENTS[own], "variant": own}


def gradients(recording: Recording) -> pd.DataFrame:
    """Return the gradient norm of every parameter inside a block of the zoo's Transformer.

    Returns:
        ``step``, ``stack`` (encoder, decoder, or empty where there is one), ``block`` (from 1), ``group`` (the
        parameter's name in its block), ``grad_norm``.
    """
    params = recording.params[["step", "name", "grad_norm"]]
    names = params["name"].drop_duplicates().astype(str)
    places = names.str.extract(_PATH).assign(name=names).dropna(subset="block")
    table = params.merge(places.fillna({"stack": ""}), on="name").dropna(subset="grad_norm")
    return table.assign(block=table["block"].astype("int64") + 1)


def profile(table: pd.DataFrame, stack: str, group: str) -> pd.DataFrame:
    """Return gradient norms [seeds or steps, blocks] of one parameter, from a table of ``gradients``."""
    rows = table[(table["stack"] == stack) & (table["group"] == group)]
    return rows.pivot(index="step", columns="block", values="grad_norm")


def streams(recording: Recording) -> dict[str, pd.DataFrame]:
    """Return stack to the stream's second moment q_l [seeds, depths] after l = 0, 1, ... blocks."""
    table = stream_by_depth(recording)
    return {
        str(path).removesuffix("blocks").rstrip("."): rows.pivot(index="step", columns="depth", values="second_moment")
        for path, rows in table.groupby("stack", sort=False)
    }


def readings(recording: Recording, probe: str, name: str = "") -> pd.Series:
    """Return what a probe read in the whole network, by seed or step.

    Args:
        recording: that holds readings of the probe.
        probe: its name.
        name: of the reading, where the probe has several.
    """
    rows = recording.probes
    rows = rows[(rows["probe"] == probe) & (rows["name"].isin([name]) | (not name))]
    return rows.groupby("step")["value"].first()


def by_depth(
    recordings: Sequence[Recording], read: Callable[[Recording], pd.Series], names: Iterable[str] = ARRANGEMENTS
) -> dict[str, pd.DataFrame]:
    """Return arrangement to numbers [seeds, depths].

    Args:
        recordings: in the order of their depth.
        read: gives a number a seed of one network.
        names: of the arrangements.
    """
    return {name: pd.DataFrame({depth(r): read(r) for r in recordings if arrangement(r) == name}) for name in names}
