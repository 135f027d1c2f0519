"""The commands that tell what there is: list and explain."""

import contextlib
from itertools import chain, product

import pytest

from gradlens.analysis.discover import discover, papers
from gradlens.errors import ModelError
from gradlens.lab.models import ARRANGEMENTS, parse_variant
from gradlens.lab.models.variants import PLAIN, block_variant, plain_variant
from gradlens.lab.norms import NORMS
from gradlens.lab.tasks import TASKS
from tests.cli.conftest import read_json


def test_list_names_everything_registered(gradlens):
    text = gradlens("list").stdout
    for name in [*ARRANGEMENTS, *NORMS, *TASKS, *(analysis.name for analysis in discover())]:
        assert name in text


def test_listed_variants_are_all_accepted(gradlens):
    variants = read_json(gradlens("list", "--json"))["variants"]
    assert all(plain_variant(name) if name.startswith(PLAIN) else block_variant(name) for name in variants)


def test_every_variant_that_is_accepted_is_listed_once_by_its_shortest_name(gradlens):
    accepted = set()
    for arrangement, norm in product(ARRANGEMENTS, NORMS):
        with contextlib.suppress(ModelError):
            (plain_variant if arrangement == PLAIN else block_variant)(f"{arrangement}/{norm}")
            accepted.add((arrangement, norm))
    variants = read_json(gradlens("list", "--json"))["variants"]
    assert sorted(map(parse_variant, variants)) == sorted(accepted)
    assert {"pre-ln", "pre-ln/none", "rezero"} <= set(variants)


@pytest.mark.parametrize("code", [code for analysis in discover() for code in analysis.codes])
def test_every_finding_can_be_explained(gradlens, code):
    result = gradlens("explain", code.lower())
    assert result.stdout.startswith(code)
    assert len(result.stdout) > 100


def test_explain_speaks_json(gradlens):
    assert read_json(gradlens("explain", "GL101", "--json"))["analysis"] == "depth_profile"


def test_explain_without_a_code_lists_every_finding_once(gradlens):
    listed = read_json(gradlens("explain", "--json"))
    every = [code for question in (*discover(), *chain(*papers().values())) for code in question.codes]
    assert [one["code"] for one in listed] == [one["code"] for one in listed if one["code"] in every]
    assert sorted(one["code"] for one in listed) == sorted(every)
    lines = gradlens("explain").stdout
    assert all(f"\n  {code}  " in lines for code in every)
    assert "Gradient spikes.\n" in lines
