"""GL704: whether a model does better on its labels than to know how often each occurs."""

from collections.abc import Iterator

import pandas as pd

from analyses.limits import held_against
from analyses.making import Check
from analyses.tables import first, number, percent, pick
from gradlens.analysis import Finding
from gradlens.analysis.finding import place

_LOOK = "Print a few inputs beside their labels as the model gets them."
CHECK = Check(
    code="GL704",
    analysis="objective",
    explanation=(
        "The labels carry a signal that is learned. The cross-entropy of sampled rows at the end of the run over the "
        "entropy of their labels: what is reached by knowing how often each label occurs and nothing of the input. The "
        "entropy is the code length of each step's labels under the frequencies of all before. A loss that stays "
        "there, though the weights moved, has found nothing in the inputs that tells the labels; labels that are all "
        "the same have nothing to tell. Asked from {steps:g} recorded steps on. To pass it takes {known:g} sampled "
        "labels a class, for of fewer the code length is more than the entropy."
    ),
    unit="of the labels' entropy",
    expected="below {most:g}",
    expected_from="a model that reads its input",
    threshold="at most {most:g}",
    causes=(
        "A task on which a long time is spent before anything is learned (innocent).",
        "Labels that are shuffled against their inputs.",
        "Inputs that do not reach the output, or are constant: a dead layer, a mask over all, a wrong column.",
        "A learning rate far too large at the start, which saturated the layers, or far too small.",
    ),
    remedies=(
        "Learn one batch by heart: a model that cannot is broken, one that can points at the data.",
        _LOOK,
    ),
    explains=("GL304", "GL306"),
)

#: Causes of labels that are all the same.
_ONE = ("Rare events, of which no batch holds one (innocent).", "A wrong column, or a filter, in front of the labels.")


def carry(rows: pd.DataFrame, label: str, site: str) -> Iterator[Finding]:
    """Yield GL704.

    Args:
        rows: of one module of the run's summary.
        label: the recording's.
        site: the module.
    """
    entropy, loss, share, known, moved = (
        first(pick(rows, quantity=q))
        for q in ("entropy of the labels", "loss on them", "loss over entropy", "labels a class", "moved")
    )
    if entropy is None or loss is None or share is None or known is None or moved is None:
        return
    of, few = f" of {place(site)}" if site else "", CHECK.limit("few")
    enough = known["value"] >= CHECK.limit("known")
    if loss["n"] < CHECK.limit("steps"):
        yield _too_few(f"{label}: {loss['n']:.0f} steps are too few to tell what is learned of the labels{of}.", label)
    elif entropy["low"] < few:
        claim = f"{label}: nearly all of {entropy['n']:.0f} sampled labels{of} are the same: there is nothing to learn."
        yield CHECK.finding("warn", claim, label, value=None, causes=_ONE, remedies=(_LOOK,))
    elif moved["value"] < CHECK.limit("moved"):
        claim = f"{label}: the weights have hardly moved: what is learned of the labels{of} is not asked."
        yield CHECK.silent(claim, label)
    else:
        status = held_against(share["low"], share["high"], most=CHECK.limit("most"))
        if status == "pass" and not enough:
            # Too few labels make their entropy too large, and a loss that is stuck look better than it is.
            claim = f"{label}: {entropy['n']:.0f} labels{of} are too few to tell their entropy from the loss."
            yield _too_few(claim, label)
            return
        said = {
            "pass": "the model reads more from its input than how often each label occurs",
            "warn": "the loss is stuck at the entropy of the labels"
            if share["low"] < 1 / CHECK.limit("most")
            else "the loss is not even down at the entropy of the labels",
        }.get(status, "the model may or may not read more from its input than how often each label occurs")
        claim = (
            f"{label}: {said}{of}: over {entropy['group']} it is {number(loss['value'])} nats, "
            f"{percent(share['value'])} of their {number(entropy['value'])}."
        )
        onset = int(share["x"]) if status == "warn" and not pd.isna(share["x"]) else None
        if onset is not None:
            claim = f"{claim[:-1]}; it rose to that at step {onset}."
        yield CHECK.finding(status, claim, label, share, onset=onset)


def _too_few(claim: str, label: str) -> Finding:
    return CHECK.finding("inconclusive", claim, label, remedies=("Record more steps.",))
