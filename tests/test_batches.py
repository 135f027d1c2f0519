"""What is counted of a batch's tokens: enough to know how often two of them are the same."""

from itertools import combinations, product

import pytest
import torch

from gradlens.batches import token_facts

PAD = 0
TOKENS = torch.tensor([[5, 5, 6, 7], [5, 6, 8, PAD], [9, 5, PAD, PAD]])


def coincidences(sequences: list[list[int]]) -> tuple[float, float]:
    """The shares of pairs that are the same, within sequences and across them, pair by pair."""
    within = [a == b for sequence in sequences for a, b in combinations(sequence, 2)]
    across = [a == b for one, other in combinations(sequences, 2) for a, b in product(one, other)]
    return sum(within) / len(within), sum(across) / len(across)


@pytest.mark.parametrize("pad", [None, PAD])
def test_shares_are_those_of_a_count_pair_by_pair(pad: int | None) -> None:
    sequences = [[t for t in row if t != pad] for row in TOKENS.tolist()]
    labels = [[t for t in row[1:] if t != pad] for row in TOKENS.tolist()]
    (facts,) = token_facts(TOKENS, pad)
    assert (facts["same_within"], facts["same_across"]) == pytest.approx(coincidences(sequences))
    assert (facts["next_same_within"], facts["next_same_across"]) == pytest.approx(coincidences(labels))
    assert facts["sequences"] == 3
    assert facts["length"] == pytest.approx(sum(map(len, sequences)) / 3)


def test_uniform_tokens_coincide_once_in_a_vocabulary() -> None:
    tokens = torch.randint(10, (64, 64), generator=torch.Generator().manual_seed(0))
    (facts,) = token_facts(tokens)
    assert [facts[name] for name in ("same_within", "same_across")] == pytest.approx([0.1, 0.1], abs=0.005)


def test_every_tensor_of_tokens_is_counted_in_order_and_no_other() -> None:
    target = torch.ones(3, 2, dtype=torch.long)
    batch = (TOKENS, torch.randn(3, 4), target, torch.tensor([1, 0, 1]))
    source_facts, target_facts = token_facts(batch)
    assert source_facts == token_facts(TOKENS)[0]
    assert target_facts["same_within"] == target_facts["same_across"] == 1.0
    assert token_facts({"pixels": torch.randn(2, 3)}) == []


def test_where_there_are_no_two_tokens_none_are_the_same() -> None:
    (facts,) = token_facts(torch.tensor([[4]]))
    assert facts["length"] == 1
    assert not any(share for name, share in facts.items() if "same" in name)
