"""The templates of ``docs/templates`` run: each is registered for a test, and keeps to what is asked of its kind."""

import pytest
import torch

from analyses import depth_profile
from gradlens.lab.models import ARRANGEMENTS
from gradlens.lab.models.transformer import Transformer
from gradlens.lab.runs.measurement import Measurement
from gradlens.recording import Recording
from gradlens.registry import Registry

TEMPLATES = "docs.templates"


def register(monkeypatch: pytest.MonkeyPatch, registry: Registry, name: str, path: str) -> None:
    monkeypatch.setitem(registry._entries, name, (f"{TEMPLATES}.{path}", "a template"))


@pytest.fixture
def half_ln(monkeypatch, tmp_path) -> Recording:
    register(monkeypatch, ARRANGEMENTS, "half-ln", "arrangement:HalfLN")
    size = {"width": 16, "blocks": 3, "heads": 2}
    job = Measurement(key="a", label="half-ln", task="lm", variant="half-ln", size=size, seeds=(0, 1, 2),
                      batch_size=2, length=16, device="cpu")  # fmt: skip
    return job.record(tmp_path / "a", lambda done, progress: None)


def test_an_arrangement_computes_its_equation(monkeypatch):
    register(monkeypatch, ARRANGEMENTS, "half-ln", "arrangement:HalfLN")
    block = Transformer("half-ln", vocab=11, width=16, blocks=1).blocks[0]
    x = torch.randn(2, 5, 16)
    y = x + block.attention(block.attention_norm(x)) / 2
    torch.testing.assert_close(block(x), y + block.ffn(block.ffn_norm(y)) / 2)


def test_an_arrangement_without_theory_is_named_so(half_ln):
    (found,) = [finding for finding in judged(half_ln) if finding.code == "GL104"]
    assert found.status == "not applicable"
    assert "Theory does not cover this arrangement, 'half-ln'." in found.claim


@pytest.mark.parametrize("sound", [True, False])
def test_advice_goes_by_what_the_recording_says_of_the_skip(half_ln, sound):
    model = {**half_ln.meta["model"], "skip_is_sound": sound}
    steep = half_ln.params.assign(grad_norm=lambda t: 5.0 ** t["name"].str.extract(r"blocks\.(\d)")[0].astype(float))
    tables = {"sites": half_ln.sites, "params": steep, "activations": half_ln.activations, "steps": half_ln.steps}
    changed = Recording.from_tables({**half_ln.meta, "model": model}, **tables)
    (found,) = [finding for finding in judged(changed) if finding.code == "GL101"]
    assert found.status == "fail"
    assert any("Pre-LN" in remedy for remedy in found.remedies) != sound


def judged(recording):
    return depth_profile.ANALYSIS.judge(depth_profile.ANALYSIS.compute([recording]))
