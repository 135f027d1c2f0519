"""Recordings that say the same are named by what they share."""

import pandas as pd
import pytest

from analyses.audit.words import name_of

KINDS = {"pre-ln": "init", "post-ln": "init", "pre-ln, warm-up": "training", "post-ln, warm-up": "training"}
TABLE = pd.DataFrame(
    [{"label": label, "variant": label.split(",")[0], "kind": kind} for label, kind in KINDS.items() for _ in range(2)]
)


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (list(KINDS), "all 4 recordings"),
        (["pre-ln", "post-ln"], "both models at initialization"),
        (["pre-ln, warm-up", "post-ln, warm-up"], "both training runs"),
        (["pre-ln", "pre-ln, warm-up"], "pre-ln (2 recordings)"),
        (["pre-ln"], "pre-ln"),
        (["post-ln", "pre-ln, warm-up"], "post-ln; pre-ln, warm-up"),
    ],
)
def test_a_group_is_named_by_kind_then_variant_then_labels(labels: list[str], name: str) -> None:
    assert name_of(labels, TABLE) == name


def test_long_groups_are_counted() -> None:
    table = pd.DataFrame({"label": list("abcdef"), "variant": list("abcdef"), "kind": "attached"})
    assert name_of(["a", "b", "c"], table) == "a, b and c"
    assert name_of(list("abcde"), table) == "a, b and 3 more"


def test_one_recording_alone_keeps_its_label() -> None:
    assert name_of(["a"], pd.DataFrame({"label": ["a"], "variant": ["v"], "kind": ["init"]})) == "a"
