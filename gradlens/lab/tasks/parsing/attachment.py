"""Attachment scores by the rules of the CoNLL 2018 shared task's official scorer, ``conll18_ud_eval.py``.

Every word counts, punctuation too (the older habit for the Penn Treebank leaves it out: its figures are higher). A word
is right in UAS if its head is, and in LAS if its head and the universal part of its relation are: ``nsubj:pass`` and
``nsubj`` are the same. The scorer's F1 is accuracy here, since the words are those of the treebank.
"""

from collections.abc import Sequence

from gradlens.errors import GradlensError


def universal(relation: str) -> str:
    """Return the relation without its subtype.

    >>> universal("nsubj:pass")
    'nsubj'
    """
    return relation.partition(":")[0]


def attachment_scores(
    gold_heads: Sequence[int], gold_relations: Sequence[str], heads: Sequence[int], relations: Sequence[str]
) -> dict[str, float]:
    """Return ``uas`` and ``las`` in per cent over words, given one after another in the same order.

    Raises:
        GradlensError: there are no words, or not as many predicted as gold ones.
    """
    counts = len(gold_heads), len(gold_relations), len(heads), len(relations)
    if len(set(counts)) > 1 or not counts[0]:
        raise GradlensError(
            f"Attachment scores need a head and a relation for each gold word; got {counts[0]} and {counts[1]} gold, "
            f"{counts[2]} and {counts[3]} predicted. Parse the same sentences, and at least one."
        )
    right_head = [head == gold for head, gold in zip(heads, gold_heads, strict=True)]
    right_relation = [universal(one) == universal(gold) for one, gold in zip(relations, gold_relations, strict=True)]
    both = sum(head and relation for head, relation in zip(right_head, right_relation, strict=True))
    return {"uas": 100 * sum(right_head) / counts[0], "las": 100 * both / counts[0]}
