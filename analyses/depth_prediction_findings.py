"""GL104 of ``depth_profile``: whether a model at initialization behaves as its equations say."""

from collections.abc import Iterator

import pandas as pd

from analyses.limits import held_against, limit
from analyses.tables import first, number, percent, pick, span
from gradlens.analysis import SEVERITY, Finding, Status

CODE = {
    "GL104": (
        "Measurement against the theory of whole networks, at initialization. From its equations alone, arrangement, "
        "sizes and how often tokens repeat, mean-field theory predicts the stream and the gradient of every weight "
        "matrix but those of queries and keys, block by block, as absolute numbers: nothing is fitted. Value: by how "
        "much the measured root mean square over seeds and the prediction differ, as a share of the larger, in the "
        "median over blocks and groups; the group that is furthest off is judged by itself too. A model that is "
        "further off is not the one that its name says: a factor is missing, weights are trained or drawn otherwise. "
        "Or it is one that the theory leaves out: narrow, or on text whose tokens foretell the labels."
    )
}


def prediction(rows: pd.DataFrame, subject: str, name: str, analysis: str) -> Iterator[Finding]:
    """Yield GL104 for one stack of a recording.

    Args:
        rows: of its summary.
        subject: the recording's label.
        name: label, with the stack where there are several.
        analysis: name of the analysis that judges.
    """
    outside = first(pick(rows, quantity="outside the theory"))
    if outside is not None:
        claim = f"{name} is not held against a prediction. {outside['group']}"
        yield Finding(code="GL104", status="not applicable", claim=claim, analysis=analysis, subject=subject)
    off, width = (first(pick(rows, quantity=q)) for q in ("off the prediction", "width"))
    if off is None or width is None:
        return
    groups = pick(rows, quantity="off the prediction in a group")
    furthest = groups.sort_values("value", ascending=False).iloc[0]
    most, in_a_group, least_width = (limit("GL104", name) for name in ("most", "group", "width"))
    parts = (held_against(off["low"], off["high"], most=most),
             held_against(furthest["low"], furthest["high"], most=in_a_group))  # fmt: skip
    status: Status = max(parts, key=SEVERITY.index)
    verb = {"pass": "behaves as its equations say", "warn": "does not behave as its equations say"}
    verdict = verb.get(status, "may or may not behave as its equations say")
    if status == "warn" and width["value"] < least_width:
        status, verdict = "inconclusive", f"is off its equations, or too narrow for them with {width['value']:.0f} wide"
    ratios = pick(rows, quantity="measured over predicted").set_index("group")["value"]
    group = str(furthest["group"])
    times = f", measured {number(ratios[group])} times the predicted" if group in ratios else ""
    yield Finding(
        code="GL104",
        status=status,
        claim=(
            f"{name}: {verdict}: in the median, stream and gradients differ from the prediction by "
            f"{percent(off['value'])}{span(off, percent)} of the larger of the two; furthest is {group}{times}, which "
            f"is {percent(furthest['value'])} of the larger."
        ),
        analysis=analysis,
        subject=subject,
        value=float(off["value"]),
        low=float(off["low"]),
        high=float(off["high"]),
        unit="of the larger",
        expected=0.0,
        expected_from="mean-field theory of the whole network, forward and backward, without a fitted constant",
        threshold=(
            f"at most {most:g} in the median, {in_a_group:g} in one group; above it, networks "
            f"narrower than {least_width:.0f} are inconclusive"
        ),
        causes=(
            "A narrow network: the theory leaves out what is of order 1/width.",
            "Text: frequent tokens that foretell their labels, which the theory takes for independent; it shows in the "
            "FFN's W1 first.",
            "Weights that are trained, or drawn otherwise than the arrangement's paper says.",
            "A block that computes something else than its name says: a norm, skip or factor is missing or doubled.",
        ),
        remedies=(
            f"Compare {group} with the arrangement's equation, in code and in initialization.",
            "Measure again at width 256, and on random tokens: what stays is the model's own.",
        ),
        reference="after Kedia et al. 2024 (2403.09635)",
        details={f"measured over predicted {name}": float(ratio) for name, ratio in ratios.items()},
    )
