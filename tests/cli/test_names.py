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


def test_list_and_explain_know_the_same_codes(gradlens):
    listed, explained = read_json(gradlens("list", "--json"))["findings"], read_json(gradlens("explain", "--json"))
    assert sorted(listed) == sorted(one["code"] for one in explained)
    assert all(f"  {code}  " in gradlens("list").stdout for code in ("GL001", "GL501"))


def test_a_column_is_explained_by_its_name_with_or_without_its_table(gradlens):
    assert gradlens("explain", "norms.kept").stdout.startswith("norms.kept (float): share that gets through")
    tables = [one["table"] for one in read_json(gradlens("explain", "grad_norm", "--json"))]
    assert tables == ["params", "steps"]


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
