"""The arrangement of networks without residual blocks, as a user meets it."""

from pathlib import Path

import pytest

from tests.cli.conftest import TINY, Gradlens, read_json
from tests.lab.tasks import tiny_mnist


@pytest.fixture(autouse=True)
def _digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_mnist.write(tmp_path / "mnist", "train", *tiny_mnist.digits(120))
    tiny_mnist.link(tmp_path / "mnist", tmp_path / "store", monkeypatch)


def test_plain_variants_are_compared_like_any_others(gradlens: Gradlens, tmp_path: Path, typeset: bool) -> None:
    result = gradlens(
        "compare", "plain", "plain/adanorm", "plain/none", "--task", "images", *TINY, "--steps", 6, "--seeds", 2,
        "--out", "out", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    labels = [row["recording"] for row in read_json(result)["summary"]]
    assert labels[:3] == ["plain", "plain/adanorm", "plain/none"]
    assert len(labels) == 9
    assert (tmp_path / "out" / "compare.pdf").stat().st_size > 10_000


def test_a_plain_variant_is_trained_and_its_accuracy_recorded(gradlens: Gradlens, tmp_path: Path) -> None:
    from gradlens.recording import load

    result = gradlens("train", "plain/detachnorm", "--task", "images", *TINY, "--steps", 4, "--out", "out")
    assert result.exit_code == 0, result.output
    assert 0 <= load(tmp_path / "out").steps["accuracy"].iloc[-1] <= 1


@pytest.mark.parametrize(
    ("variant", "task", "message"),
    [
        ("pre-ln", "images", "must have the arrangement 'plain'; got 'pre-ln'"),
        ("post-ln/adanorm", "images", "Take 'plain/adanorm' here"),
        (
            "plain",
            "lm",
            "must have its residual blocks arranged, as pre-ln, post-ln or another of `gradlens list`; got 'plain'",
        ),
        ("plain/adanorm", "lm", "Take 'pre-ln/adanorm' here"),
    ],
)
def test_a_variant_of_the_other_kind_is_refused_before_anything_is_written(
    gradlens: Gradlens, tmp_path: Path, variant: str, task: str, message: str
) -> None:
    result = gradlens("compare", variant, "--task", task, "--out", "out")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
