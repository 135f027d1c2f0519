"""GL809: the weights that a model begins with, before anything is learned."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analyses.limits import limit
from analyses.making import OVERSHOT, SYMPTOMS, Check
from analyses.parameters.places import places
from analyses.tables import number, pick
from gradlens.analysis import Finding
from gradlens.analysis.finding import place
from gradlens.recording import Recording

Row = dict[str, Any]
CHECK = Check(
    analysis="architecture",
    code="GL809",
    explanation=(
        "The weights at the start. The root mean square of a matrix' entries times the root of its inputs is what it "
        "makes of the size of a vector without a preferred direction: 0.6 as PyTorch initializes, 1 after Xavier and "
        "LeCun, 1.4 after Kaiming. It warns where the median matrix is outside of {least:g} to {most:g}, but where the "
        "loss of a classifier begins at chance although the matrices are larger: something takes their size out. So "
        "it does where all matrices of a block are 0 while other blocks' are not; where an embedding's entries are "
        "beyond {embedding:g}; and where the vectors at the first norm behind an embedding are of so unlike size that "
        "1/σ is {unlike:g} times that of their root mean square: a few of them drown the rest. It never fails. Asked "
        "at initialization and in a first step."
    ),
    unit="times the input's size",
    expected="0.6 to 1.4",
    expected_from="the usual initializations",
    threshold="{least:g} to {most:g}",
    causes=(
        "Weights that are scaled where they are used, as with an equalized learning rate (innocent).",
        "Weights that go on from a training (innocent).",
        "A deviation where a variance was asked for, or a gain that is multiplied twice.",
        "An initialization that was written for another width.",
    ),
    remedies=("Initialize with a deviation of about one over the root of a layer's inputs.",),
    reference="Glorot and Bengio 2010; He et al. 2015 (1502.01852)",
    explains=(*SYMPTOMS, *OVERSHOT, "GL102", "GL103", "GL201", "GL202", "GL401", "GL808"),
)
#: What stands in ``unit``: which of the laws of a start is broken.
SCALE, ZEROS, EMBEDDING, UNLIKE = "scale", "zeros", "embedding", "unlike"
#: Norms whose vectors are no tokens.
_OVER_SPACE = ("batchnorm", "groupnorm", "instancenorm")


def numbers(recording: Recording) -> Iterator[Row]:
    """Yield what is odd of the weights (``group``) in the first step, how much (``value``), and how many there are.

    Of a recording that does not begin with the first step of a training nothing is said.
    """
    params = recording.params
    if params.empty or params["step"].min() > 0 or params["weight_norm"].isna().all():
        return
    first = params[params["step"] == 0].drop_duplicates("name")
    first = first.merge(places(recording)[["name", "group", "block"]], on="name")
    matrices = first[(first["rows"] > 1) & (first["numel"] > first["rows"])]
    gains = matrices["weight_norm"] / np.sqrt(matrices["rows"])
    gains = gains[gains > 0]
    yield {"quantity": CHECK.code, "n": len(gains), "value": gains.median()}
    if len(gains) >= limit(CHECK.code, "matrices"):
        large = gains.median() > limit(CHECK.code, "most") and not _calm(recording)
        if large or gains.median() < limit(CHECK.code, "least"):
            yield {"quantity": CHECK.code, "group": "the model itself", "unit": SCALE, "value": gains.median(),
                   "n": len(gains)}  # fmt: skip
            return
    empty = (matrices["weight_norm"] == 0)[matrices["block"]].groupby(matrices["group"], sort=False)
    whole = empty.all() & (empty.size() > 1)
    for block in whole.index[whole] if not whole.all() else ():
        yield {"quantity": CHECK.code, "group": str(block), "unit": ZEROS, "value": 0.0, "n": empty.size()[block]}
    # Which the recording counts no rows of.
    embeddings = first[first["rows"].isna() & first["name"].str.endswith("weight")]
    sizes = (embeddings["weight_norm"] / np.sqrt(embeddings["numel"])).set_axis(embeddings["name"])
    for name, value in sizes[sizes > limit(CHECK.code, "embedding")].items():
        yield {"quantity": CHECK.code, "group": str(name), "unit": EMBEDDING, "value": value}
    if len(embeddings):
        yield from _unlike(recording)


def _calm(recording: Recording) -> bool:
    """Whether the loss of a classifier begins at chance, or below."""
    outputs = recording.outputs
    known = outputs[outputs["sampled_loss"].notna() & (outputs["kind"] == "softmax")]
    if known.empty:
        return False
    row = known.sort_values("step").iloc[0]
    return bool(row["sampled_loss"] <= math.log(row["classes"]) + limit(CHECK.code, "above_chance"))


def _unlike(recording: Recording) -> Iterator[Row]:
    """Yield the first norm over features whose vectors are of unlike size, but where many of them are next to 0."""
    sites = recording.sites[(recording.sites["kind"] == "norm") & ~recording.sites["norm"].isin(_OVER_SPACE)]
    inputs = recording.activations[recording.activations["tensor"] == "input"][["step", "site", "call", "rms"]]
    norms = recording.norms[recording.norms["step"] == 0].merge(inputs, on=["step", "site", "call"])
    norms = norms.merge(sites[["site", "order", "eps"]], on="site").sort_values("order")
    if norms.empty:
        return
    row = norms.iloc[0]
    at_eps = row["inv_sigma"] * math.sqrt(row["eps"]) if row["eps"] > 0 else 0.0
    times = row["inv_sigma"] * row["rms"]
    if times > limit(CHECK.code, "unlike") and at_eps < limit(CHECK.code, "empty"):
        yield {"quantity": CHECK.code, "group": row["site"], "unit": UNLIKE, "value": times}


def judged(rows: pd.DataFrame, label: str) -> Iterator[Finding]:
    """Yield GL809.

    Args:
        rows: of the recording.
        label: of it.
    """
    own = pick(rows, quantity=CHECK.code)
    for _, row in own[own["unit"] != ""].iterrows():
        site, value = str(row["group"]), number(row["value"])
        at = place(site)
        said = {
            SCALE: f"the median of {row['n']:.0f} matrices begins {'large' if row['value'] > 1 else 'small'}: it makes "
            f"of a vector {value} times its size",
            ZEROS: f"all {row['n']:.0f} matrices of {at} begin at 0, and those of other blocks do not",
            EMBEDDING: f"the entries of {at} begin with a root mean square of {value}",
            UNLIKE: f"the vectors that {at} is given begin of unlike size: their 1/σ is {value} times that of their "
            "root mean square, so that a few drown the rest",
        }[str(row["unit"])]
        own_words: Row = {} if row["unit"] == SCALE else _OTHERWISE[str(row["unit"])]
        sites = () if row["unit"] == SCALE else (site,)
        yield CHECK.finding("warn", f"{label}: {said}.", label, value=float(row["value"]), sites=sites, born="forward",
                            **own_words)  # fmt: skip
    if len(own) and (own["unit"] == "").all():
        row = own.iloc[0]
        if row["n"]:
            claim = (
                f"{label}: the median of {row['n']:.0f} matrices makes {number(row['value'])} times a vector's size."
            )
            yield CHECK.finding("pass", claim, label, value=float(row["value"]), causes=(), remedies=())
        else:
            yield CHECK.silent(f"{label}: no weight matrix was recorded at the start.", label)


_OTHERWISE: dict[str, Row] = {
    ZEROS: {
        "unit": "weights", "expected": "weights that are not 0", "expected_from": "the model's other blocks",
        "threshold": "not all 0",
        "causes": ("A block that is to begin as the identity; one matrix, the last, is enough for that (innocent).",
                   "An initialization that was never called, or of empty tensors."),
        "remedies": ("Initialize all but the last matrix of a branch as in the other blocks.",),
    },
    EMBEDDING: {
        "unit": "root mean square", "expected": "0.02 to 1", "expected_from": "the usual initializations",
        "threshold": "at most {embedding:g}".format(embedding=CHECK.limit("embedding")),
        "causes": ("Vectors from a training (innocent).", "A row, or all, that was overwritten."),
        "remedies": ("Look at the norms of the embedding's rows.",),
    },
    UNLIKE: {
        "unit": "times that of vectors of one size", "expected": "about 1", "expected_from": "vectors of like size",
        "threshold": "at most {unlike:g}".format(unlike=CHECK.limit("unlike")),
        "causes": ("Padding, or a dropout of nearly all, whose vectors are next to 0 (innocent).",
                   "Single rows of an embedding that are far larger than the rest.",
                   "Inputs whose scale differs from sample to sample, or place to place."),
        "remedies": ("Look at the norms of the embedding's rows, or of the inputs.",),
    },
}  # fmt: skip
