"""GL301 of ``training_curves``: how a run ended, as far as its loss or its gradient tell."""

import pandas as pd

from analyses.advice import arrange_otherwise, lower_the_rate
from analyses.limits import limit
from analyses.tables import first, pick
from gradlens.analysis import Finding, Status

CODE = {
    "GL301": (
        "How a run ended. A loss that is NaN or infinite, or a run that the trainer stopped as diverged, "
        "fails; a run that was interrupted says nothing yet. Where no loss was recorded, the gradient tells: "
        "a loss that is no number has a gradient that is none."
    ),
}
_STOPPED = {
    "interrupted": (
        ("An exception in the training loop, or a stop by hand.",),
        ("Resume the run.",),
    ),
    "running": (("The run goes on, or its process was killed.",), ("Report again when it has ended.",)),
}


def ended(rows: pd.DataFrame, label: str, analysis: str) -> Finding:
    """Return GL301: a fact about the run, so there is no interval.

    Args:
        rows: of the run's summary.
        label: the recording's.
        analysis: name of the analysis that judges.
    """
    how, broke = pick(rows, quantity="status").iloc[0], first(pick(rows, quantity="broken"))
    causes: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    status: Status
    if broke is not None and broke["group"] == "gradient" and not broke["value"]:
        status, claim = "warn", f"its gradient is not finite in {_of(how)}, the first of them step {how['x']:.0f}"
        causes = ("A loss scaler that looks for its factor: it skips such steps (innocent).", "An odd batch.")
        remedies = ("Pass the loss to lens.step(), and the scaler to attach: both then tell.",)
    elif broke is not None or has_diverged(rows):
        status, claim = "fail", f"the run diverged: {_where(how, broke)}"
        causes, remedies = _advice(rows)
    elif how["group"] in _STOPPED:
        status, claim = "inconclusive", f"the run is {how['group']}, with {_known(rows)}"
        causes, remedies = _STOPPED[str(how["group"])]
    else:
        status, claim = "pass", f"the run came to its end with {_known(rows)}"
        if not _count(rows, "loss") and not _count(rows, "gradient"):
            status, claim = "inconclusive", "the run came to its end; neither its loss nor its gradient was recorded"
            remedies = ("Pass the loss to lens.step(loss=...).",)
    return Finding(
        code="GL301",
        status=status,
        claim=f"{label}: {claim}{_unseen(rows)}.",
        analysis=analysis,
        subject=label,
        value=None if status == "fail" and not how["value"] else float(how["value"]),
        unit="broken steps",
        expected=0.0,
        expected_from="a run that trains",
        threshold="no step without a finite loss or, where none was recorded, a finite gradient",
        steps=() if pd.isna(how["x"]) else (int(how["x"]),),
        causes=causes,
        remedies=remedies,
        reference="Xiong et al. 2020 (2002.04745), Fig. 2",
    )


def has_diverged(rows: pd.DataFrame) -> bool:
    """Whether a run broke and did not come back, or was stopped as diverged."""
    broke = first(pick(rows, quantity="broken"))
    stopped = (pick(rows, quantity="status")["group"] == "diverged").any()
    return bool(stopped or (broke is not None and broke["value"] > 0))


def _where(how: pd.Series, broke: pd.Series | None) -> str:
    at = "" if pd.isna(how["x"]) else f" at step {how['x']:.0f}"
    if broke is None:
        return f"it was stopped{at}, its loss not finite or far above chance for long"
    after = " and after" if broke["value"] else f", and in {_of(how)}"
    no_number = "NaN" if broke["n"] == how["value"] else "not finite"
    return f"its {broke['group']} is {no_number}{at}{after}"


def _of(how: pd.Series) -> str:
    return f"{how['value']:.0f} of {how['n']:.0f} recorded steps"


def _known(rows: pd.DataFrame) -> str:
    """Say in how many steps the loss was seen to be finite, else the gradient."""
    steps = pick(rows, quantity="status").iloc[0]["n"]
    seen = _count(rows, "loss")
    if seen == steps:
        return f"a finite loss in all {steps:.0f} recorded steps"
    if seen:
        return f"a finite loss in the {seen:.0f} of {steps:.0f} recorded steps that have one"
    gradients = _count(rows, "gradient")
    which = f"all {steps:.0f}" if gradients == steps else f"{gradients:.0f} of {steps:.0f}"
    return f"a finite gradient in {which} recorded steps"


def _unseen(rows: pd.DataFrame) -> str:
    return "" if _count(rows, "loss") else "; no finite loss was recorded"


def _count(rows: pd.DataFrame, what: str) -> float:
    return float(pick(rows, quantity=f"steps with a finite {what}")["value"].iloc[0])


def _advice(rows: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return causes and remedies: of an unstable run where the gradient had grown, else of a fault at one step."""
    growth = first(pick(rows, quantity="gradient before the break"))
    grew = growth is None or growth["value"] > limit("GL303", "spike")
    before = "" if growth is None or pd.isna(growth["value"]) else ": the gradient had not grown before it"
    if grew:
        causes = ("A learning rate too high for the first steps.", "Overflow in float16.", "A fault in loss or data.")
        steady: tuple[str, ...] = ()
    else:
        causes = (
            "A batch with NaN or infinite inputs, or a loss that is none for it (log or division of 0).",
            "Overflow in float16.",
            "A learning rate far too high: one step was enough.",
        )
        steady = (f"Look at batch and loss of that step{before}.",)
    rate = lower_the_rate(rows)
    calm = (rate, "Clip the gradient norm.") if grew else (f"If both are sound: {rate[0].lower()}{rate[1:]}",)
    otherwise = arrange_otherwise(rows, "Take the norm before the branch (Pre-LN).") if grew else ()
    return causes, (*steady, *calm, *otherwise)
