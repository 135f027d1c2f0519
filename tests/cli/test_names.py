"""The commands that tell what there is: list and explain."""

import pytest

from gradlens.analysis.discover import discover
from gradlens.models import ARRANGEMENTS, parse_variant
from gradlens.norms import NORMS
from gradlens.tasks import TASKS
from tests.cli.conftest import read_json


def test_list_names_everything_registered(gradlens):
    text = gradlens("list").stdout
    for name in [*ARRANGEMENTS, *NORMS, *TASKS, *(analysis.name for analysis in discover())]:
        assert name in text


def test_listed_variants_are_all_accepted(gradlens):
    variants = read_json(gradlens("list", "--json"))["variants"]
    assert len(variants) == len(ARRANGEMENTS) * len(NORMS)
    assert all(parse_variant(variant) for variant in variants)


@pytest.mark.parametrize("code", [code for analysis in discover() for code in analysis.codes])
def test_every_finding_can_be_explained(gradlens, code):
    result = gradlens("explain", code.lower())
    assert result.stdout.startswith(code)
    assert len(result.stdout) > 100


def test_explain_speaks_json(gradlens):
    assert read_json(gradlens("explain", "GL101", "--json"))["analysis"] == "depth_profile"
