"""What an arrangement says of itself reaches the findings, whoever adds one."""

import numpy as np
import pytest

from analyses.depth_profile import ANALYSIS
from gradlens.analysis import Finding
from gradlens.lab.models import ARRANGEMENTS
from gradlens.lab.models.variants import PLAIN
from gradlens.lab.runs.measurement import Measurement
from gradlens.recording import Recording


@pytest.fixture(scope="module", params=[name for name in ARRANGEMENTS if name != PLAIN])
def measured(request, tmp_path_factory) -> Recording:
    size = {"width": 16, "blocks": 4, "heads": 2}
    job = Measurement(key="a", label="a", task="lm", variant=request.param, size=size, seeds=(0, 1, 2), batch_size=2,
                      length=16, device="cpu")  # fmt: skip
    return job.record(tmp_path_factory.mktemp("run") / "a", lambda done, progress: None)


def judged(recording: Recording) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute([recording]))}


def test_it_is_held_against_the_theory_that_it_names_or_is_said_to_have_none(measured):
    arrangement = measured.meta["model"]["arrangement"]
    outside = f"Theory does not cover this arrangement, {arrangement!r}."
    found = judged(measured)["GL104"]
    assert (outside in found.claim) == (ARRANGEMENTS[arrangement].theory is None)
    assert (found.value is None) == (ARRANGEMENTS[arrangement].theory is None)


def test_it_is_advised_another_arrangement_only_where_its_skip_is_not_sound(measured):
    block = measured.params["name"].str.extract(r"blocks\.(\d)")[0].astype(float)
    steep = measured.params.assign(grad_norm=np.exp2(2 * block))
    shown = {"sites": measured.sites, "steps": measured.steps, "activations": measured.activations, "params": steep}
    found = judged(Recording.from_tables(measured.meta, **shown))["GL101"]
    assert found.status == "fail"
    sound = ARRANGEMENTS[measured.meta["model"]["arrangement"]].skip_is_sound
    assert any("Pre-LN" in remedy for remedy in found.remedies) != sound
