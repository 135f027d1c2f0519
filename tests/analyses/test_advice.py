"""Advice on the arrangement is given where it would be news, and where the arrangement is known."""

import pandas as pd
import pytest

from analyses.advice import arrange_otherwise, known
from gradlens.recording import Recording
from gradlens.recording.schema import STORED, names


def advised(placements: dict[str, str], blocks: int = 2, **model: object) -> tuple[str, bool]:
    """What is known of a model whose norms stand so in each block, and whether it is told to take Pre-LN."""
    rows = [{"site": f"b.{i}", "kind": "block", "block": i} for i in range(blocks)]
    rows += [
        {"site": f"b.{i}.{name}", "kind": "norm", "placement": place, "block": i}
        for i in range(blocks)
        for name, place in placements.items()
    ]
    sites = pd.DataFrame(rows, columns=names(STORED["sites"])).assign(order=range(len(rows)))
    recording = Recording({"label": "run", "model": model}, {"sites": sites})
    summary = pd.DataFrame([*known(recording)])
    return summary["group"].iloc[0], bool(arrange_otherwise(summary, "Pre-LN"))


@pytest.mark.parametrize(
    ("placements", "name", "news"),
    [
        ({"a": "pre_branch", "b": "pre_branch"}, "pre-ln", False),
        ({"a": "pre_branch", "q": "qk"}, "pre-ln", False),
        ({"a": "pre_branch", "b": "post_branch"}, "peri-ln", False),
        ({"a": "post_branch"}, "", False),  # OLMo 2, a ResNet: the skip is the identity
        ({"a": "in_branch"}, "", False),  # ConvNeXt
        ({"a": "post_add", "b": "post_add"}, "post-ln", True),
        ({"a": "post_add", "q": "qk"}, "post-ln", True),
        ({"a": "pre_branch", "b": "post_add"}, "", False),  # Keel: it has a norm before the branch
        ({"a": "unknown"}, "", False),
        ({"a": "unknown", "b": "pre_branch"}, "", False),
    ],
)
def test_what_the_norms_show(placements, name, news):
    assert advised(placements) == (name, news)


def test_a_model_without_blocks_has_no_skip_to_arrange():
    assert advised({}, blocks=0) == ("plain", False)


def test_what_the_model_says_of_itself_holds():
    assert advised({"a": "post_add"}, arrangement="deepnorm", skip_is_sound=True) == ("deepnorm", False)
    assert advised({"a": "post_add"}, arrangement="mine", skip_is_sound=False) == ("mine", True)
    assert advised({"a": "pre_branch"}, arrangement="post-ln") == ("post-ln", True)  # of before models said it
