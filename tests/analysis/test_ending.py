"""The first page and the findings mean the same steps by the end of training."""

import pandas as pd
import pytest

from analyses import norm_decomposition, training_curves
from gradlens.analysis.ending import at_the_end, span_of_steps
from gradlens.analysis.summary import summary
from tests.analyses.planted import training


@pytest.mark.parametrize(("recorded", "last"), [(1, 1), (6, 4), (10, 5), (20, 10), (40, 10), (51, 11), (100, 20)])
def test_the_end_is_the_last_fifth_and_of_short_recordings_ten_steps_or_half_or_four(recorded: int, last: int) -> None:
    end = at_the_end(pd.Series(range(recorded)))
    assert end.tolist() == list(range(recorded - last, recorded))


def test_steps_are_named_from_the_first_to_the_last_and_counted_where_some_were_not_recorded() -> None:
    assert span_of_steps(pd.Series([1.0, 1.0, 1.0], index=[7, 8, 9])) == "steps 7 to 9"
    assert span_of_steps(pd.Series([1.0, 1.0], index=[80, 90])) == "steps 80 to 90 (2 of them recorded)"
    assert span_of_steps(pd.Series([1.0], index=[3])) == "step 3"


@pytest.mark.parametrize("steps", [6, 10, 25, 40, 120])
def test_the_first_page_has_the_numbers_of_the_findings(steps: int) -> None:
    run = training([9.0 - 0.05 * k for k in range(steps)], kept=lambda step: 0.99 - 0.002 * step, balance=3.0)
    row = summary([run]).iloc[0]
    found = [
        row
        for analysis in (training_curves.ANALYSIS, norm_decomposition.ANALYSIS)
        for row in analysis.compute([run]).to_dict("records")
        if row["panel"] == "summary"
    ]
    values = {row["quantity"]: row["value"] for row in found}
    assert row["loss"] == pytest.approx(values["loss at the end"])
    assert row["kept"] == pytest.approx(values["kept at the end"])
    assert row["gradient_ratio"] == pytest.approx(values["gradient ratio at the end"])
