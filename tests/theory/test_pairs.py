"""Classes of pairs of tokens against enumeration of every pair."""

import itertools

import numpy as np
import pytest

from gradlens.theory.pairs import Pairs

BATCHES = [(1, 1), (1, 7), (2, 2), (3, 9), (2, 13)]


def groups(pairs: Pairs) -> list[int]:
    """The group of each position."""
    return [group for group, size in enumerate(pairs.sizes.astype(int)) for _ in range(size)]


def class_of(pairs: Pairs, i: int, k: int) -> int:
    """Class of the pair of tokens at positions i and k."""
    of = groups(pairs)
    if i == k:
        return of[i]
    wanted = tuple(sorted((of[i], of[k])))
    apart = range(pairs.groups, len(pairs.left))
    return next(index for index in apart if (pairs.left[index], pairs.right[index]) == wanted)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("sequences", "length"), BATCHES)
def test_every_ordered_pair_of_the_batch_is_counted_in_its_class(sequences: int, length: int, causal: bool) -> None:
    pairs = Pairs.of(sequences, length, causal=causal)
    expected = np.zeros_like(pairs.count)
    for s, t in itertools.product(range(sequences), repeat=2):
        for i, k in itertools.product(range(length), repeat=2):
            expected[int(s != t), class_of(pairs, i, k)] += 1
    np.testing.assert_array_equal(pairs.count, expected)
    assert pairs.count.sum() == (sequences * length) ** 2


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [2, 7, 9, 13, 20])
def test_pairs_of_keys_are_seen_as_often_as_enumeration_says(length: int, causal: bool) -> None:
    pairs = Pairs.of(1, length, causal=causal)
    seen, queries = np.zeros_like(pairs.seen), np.zeros(len(pairs.left))
    for i, k in itertools.product(range(length), repeat=2):
        query = class_of(pairs, i, k)
        queries[query] += 1
        for j, m in itertools.product(range(i + 1 if causal else length), range(k + 1 if causal else length)):
            seen[query, class_of(pairs, j, m)] += 1
    met = queries > 0  # a group of one position has no pair of different positions
    np.testing.assert_allclose(pairs.seen[met], seen[met] / queries[met, None], rtol=1e-12)


def test_only_a_causal_stack_tells_positions_apart() -> None:
    assert Pairs.of(4, 32, causal=False).groups == 1
    assert Pairs.of(4, 32, causal=True).groups > 4


def test_groups_of_positions_grow_slowly_enough_for_long_sequences() -> None:
    pairs = Pairs.of(2, 4096, causal=True)
    assert pairs.sizes.sum() == 4096
    assert pairs.groups < 24


def test_a_table_holds_one_number_for_each_kind_of_pair() -> None:
    pairs = Pairs.of(2, 5, causal=True)
    table = pairs.table(1.0, 0.5, (0.2, 0.1))
    assert (pairs.own(table) == 1).all()
    assert (table[1, : pairs.groups] == 0.5).all()
    assert (table[0, pairs.groups :] == 0.2).all()
    assert (table[1, pairs.groups :] == 0.1).all()
    # 10 tokens; 10 pairs at one position of two sequences; of 4 other positions, 40 in and 40 across sequences
    assert pairs.total(table) == pytest.approx(10 * 1 + 10 * 0.5 + 40 * 0.2 + 40 * 0.1)


def test_the_mean_over_tokens_weighs_a_group_with_its_size() -> None:
    pairs = Pairs.of(1, 5, causal=True)
    table = pairs.table(0.0, 0.0, (0.0, 0.0))
    table[0, : pairs.groups] = np.arange(pairs.groups)
    assert pairs.over_tokens(table) == pytest.approx(np.mean(groups(pairs)))
