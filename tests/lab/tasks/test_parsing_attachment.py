"""Attachment scores against counts by hand, by the rules of the CoNLL 2018 scorer."""

import pytest

from gradlens.errors import GradlensError
from gradlens.lab.tasks.parsing.attachment import attachment_scores

#                 He       was         seen    ,        yesterday   .
GOLD = ((3, 3, 0, 5, 3, 3), ("nsubj:pass", "aux:pass", "root", "punct", "obl:tmod", "punct"))


def test_all_right_is_a_hundred_per_cent():
    assert attachment_scores(*GOLD, *GOLD) == {"uas": 100.0, "las": 100.0}


def test_a_subtype_does_not_count_and_punctuation_does():
    heads = (3, 3, 0, 3, 3, 3)  # the comma is wrong
    relations = ("nsubj", "aux", "root", "punct", "obl:npmod", "punct")
    assert attachment_scores(*GOLD, heads, relations) == pytest.approx({"uas": 500 / 6, "las": 500 / 6})


def test_a_relation_counts_only_at_the_right_head_and_a_head_also_with_a_wrong_relation():
    heads = (3, 3, 0, 5, 4, 1)
    relations = ("obj", "aux:pass", "root", "punct", "obl:tmod", "punct")
    assert attachment_scores(*GOLD, heads, relations) == pytest.approx({"uas": 400 / 6, "las": 300 / 6})


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (((3, 3), ("nsubj", "aux")), "got 6 and 6 gold, 2 and 2 predicted"),
        ((GOLD[0], ("nsubj",)), "got 6 and 6 gold, 6 and 1 predicted"),
    ],
)
def test_other_words_than_the_treebanks_are_an_error(predicted, message):
    with pytest.raises(GradlensError, match=message):
        attachment_scores(*GOLD, *predicted)


def test_no_words_are_an_error_and_not_a_perfect_score():
    with pytest.raises(GradlensError, match="at least one"):
        attachment_scores((), (), (), ())
