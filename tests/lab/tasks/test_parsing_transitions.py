"""The arc-standard system against one written plainly: a stack, a buffer and a set of arcs, one sentence at a time."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlens.lab.tasks.parsing.conllu import Sentence
from gradlens.lab.tasks.parsing.features import Sheet, Symbols, oracle_states, parse
from gradlens.lab.tasks.parsing.transitions import LEFT, NONE, RIGHT, SHIFT, States, is_projective
from tests.lab.tasks import tiny_treebank

ABSENT = None


@dataclass
class OneByOne:
    """One sentence of n words."""

    n: int
    stack: list[int] = field(default_factory=lambda: [0])
    arcs: dict[int, int] = field(default_factory=dict)
    first: int = 1

    def legal(self) -> list[bool]:
        rest, size = self.n + 1 - self.first, len(self.stack)
        return [rest > 0, size > 2, size > 2 or (size == 2 and rest == 0)]

    def apply(self, kind: int) -> None:
        if kind == SHIFT:
            self.stack.append(self.first)
            self.first += 1
        elif kind == LEFT:
            below = self.stack.pop(-2)
            self.arcs[below] = self.stack[-1]
        else:
            top = self.stack.pop()
            self.arcs[top] = self.stack[-1]

    def children(self, word: int | None, side: int) -> list[int | None]:
        """The children on one side, the outermost first, then nothing."""
        found = [] if word is None else [c for c, h in self.arcs.items() if h == word and (c - word) * side > 0]
        return [*sorted(found, key=lambda child: -abs(child - word)), ABSENT, ABSENT]

    def positions(self) -> list[int | None]:
        stack = [ABSENT] * 3 + self.stack
        buffer = [*range(self.first, self.n + 1), ABSENT, ABSENT, ABSENT]
        found = [stack[-1], stack[-2], stack[-3], *buffer[:3]]
        for top in found[:2]:
            left, right = self.children(top, -1), self.children(top, 1)
            found += [left[0], right[0], left[1], right[1]]
            found += [self.children(left[0], -1)[0], self.children(right[0], 1)[0]]
        return found


@st.composite
def trees(draw: st.DrawFn) -> tuple[int, ...]:
    """Heads of any tree with one root: each word of a random order hangs on one before it."""
    n = draw(st.integers(1, 9))
    order = draw(st.permutations(range(1, n + 1)))
    heads = [0] * (n + 1)
    for i in range(1, n):
        heads[order[i]] = order[draw(st.integers(0, i - 1))]
    return tuple(heads[1:])


def crosses(heads: tuple[int, ...]) -> bool:
    """By the other definition: some word between a head and its dependent does not descend from that head."""

    def descends(word: int, head: int) -> bool:
        while word not in (0, head):
            word = heads[word - 1]
        return word == head

    return any(
        not descends(between, head)
        for word, head in enumerate(heads, start=1)
        for between in range(min(word, head) + 1, max(word, head))
    )


def treebank_of(trees: list[tuple[int, ...]]) -> list[Sentence]:
    return [
        Sentence(
            forms=tuple(f"w{i}" for i in range(len(heads))),
            upos=("X",) * len(heads),
            xpos=("_",) * len(heads),
            heads=heads,
            relations=tuple("root" if head == 0 else f"r{i % 3}" for i, head in enumerate(heads)),
        )
        for heads in trees
    ]


@given(trees())
@settings(max_examples=300, deadline=None)
def test_a_tree_is_projective_when_all_between_a_word_and_its_head_descends_from_the_head(heads):
    assert is_projective(heads) != crosses(heads)


@given(st.lists(trees(), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_the_oracle_rebuilds_every_projective_tree_by_legal_transitions_two_a_word(trees):
    projective = [heads for heads in trees if is_projective(heads)]
    if not projective:
        return
    bank = treebank_of(projective)
    sheet = Sheet(bank, Symbols.of(bank))
    made = 0
    while count := sheet.states.active:
        kinds, relations = sheet.right()
        assert sheet.states.legal()[np.arange(count), kinds].all()
        sheet.states.apply(kinds, relations)
        made += count
    assert made == 2 * sum(map(len, projective))
    assert np.array_equal(sheet.states.heads, sheet.heads)
    assert np.array_equal(sheet.states.relations, sheet.relations)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=4), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_any_legal_way_gives_the_states_and_the_tree_of_the_plain_system(lengths, seed):
    lengths = sorted(lengths, reverse=True)
    states, plain = States(np.array(lengths)), [OneByOne(n) for n in lengths]
    nothing, rng, steps = lengths[0] + 1, np.random.default_rng(seed), 0
    while count := states.active:
        assert [n for n in lengths if steps < 2 * n] == lengths[:count]
        steps += 1
        legal = states.legal()
        assert legal.tolist() == [one.legal() for one in plain[:count]]
        expected = [[nothing if at is ABSENT else at for at in one.positions()] for one in plain[:count]]
        assert states.positions().tolist() == expected
        kinds = np.array([rng.choice(np.flatnonzero(row)) for row in legal])
        states.apply(kinds, np.zeros(count, dtype=int))
        for one, kind in zip(plain, kinds, strict=False):
            one.apply(kind)
    for row, one in zip(states.heads, plain, strict=True):
        assert {child: head for child, head in enumerate(row) if head != NONE} == one.arcs
        assert sorted(one.arcs) == list(range(1, one.n + 1))
        assert list(one.arcs.values()).count(0) == 1


def test_each_arc_is_made_as_soon_as_the_word_that_leaves_has_all_its_children():
    sentence = Sentence(
        ("He", "wrote", "her", "letters", "."), ("X",) * 5, ("_",) * 5, (2, 0, 4, 2, 2),
        ("nsubj", "root", "nmod", "obj", "punct"),
    )  # fmt: skip
    sheet = Sheet([sentence], Symbols.of([sentence]))
    made = []
    while sheet.states.active:
        kinds, relations = sheet.right()
        made.append(int(kinds[0]))
        sheet.states.apply(kinds, relations)
    assert made == [SHIFT, SHIFT, LEFT, SHIFT, SHIFT, LEFT, RIGHT, SHIFT, RIGHT, RIGHT]


def test_a_row_holds_words_tags_and_relations_of_the_positions():
    bank = tiny_treebank.sentences(40)
    symbols = Symbols.of(bank)
    sheet = Sheet(bank[:1], symbols)
    names = [{number: name for name, number in of.items()} for of in (symbols.words, symbols.tags)]
    for _ in range(6):
        sheet.states.apply(*sheet.right())
    row, positions = sheet.features()[0], sheet.states.positions()[0]
    assert row.shape == (48,)
    for place, at in enumerate(positions):
        word, tag = names[0].get(row[place]), names[1].get(row[18 + place])
        if 1 <= at <= len(bank[0]):
            assert (word, tag) == (bank[0].forms[at - 1], f"{bank[0].upos[at - 1]}/{bank[0].xpos[at - 1]}")
        else:
            assert (row[place], row[18 + place]) == ((1, 1) if at == 0 else (0, 0))
        if place >= 6:
            relation = sheet.states.relations[0, at]
            assert row[36 + place - 6] == relation + 1


def test_words_that_occur_once_and_new_ones_are_unknown_and_case_does_not_matter():
    bank = treebank_of([(0, 1), (0, 1)])
    once = Sentence(("W0", "once"), ("X", "X"), ("_", "new"), (0, 1), ("root", "r1"))
    symbols = Symbols.of([*bank, once])
    assert list(symbols.words) == ["w0", "w1"]
    row = Sheet([Sentence(("W1", "other"), ("X", "X"), ("_", "other"), (0, 1), ("root", "r1"))], symbols).features()[0]
    assert row[3:5].tolist() == [symbols.words["w1"], 2]
    assert row[21:23].tolist() == [symbols.tags["X/_"], 2]


def test_oracle_states_are_the_same_whatever_the_order_of_the_sentences():
    bank = tiny_treebank.sentences(30)
    symbols = Symbols.of(bank)
    states, transitions = oracle_states(bank, symbols)
    assert len(states) == len(transitions) == 2 * sum(map(len, bank))
    assert transitions.max() < symbols.transitions
    table = np.column_stack([states, transitions])
    other = np.column_stack(oracle_states(bank[::-1], symbols))
    assert np.array_equal(table[np.lexsort(table.T)], other[np.lexsort(other.T)])


def test_transitions_with_a_relation_that_training_lacks_are_left_out():
    known, new = treebank_of([(0, 1, 1)]), treebank_of([(0, 1, 1, 1)])
    symbols = Symbols.of(known)
    new[0] = Sentence(new[0].forms, new[0].upos, new[0].xpos, new[0].heads, ("root", "r1", "new", "r2"))
    assert len(oracle_states(new, symbols)[1]) == 7


@pytest.mark.parametrize("seed", range(3))
def test_following_the_oracle_parse_gives_the_treebanks_trees_in_its_order(seed):
    bank = tiny_treebank.sentences(20, seed)
    symbols = Symbols.of(bank)
    states, transitions = oracle_states(bank, symbols)
    right = dict(zip(map(tuple, states), transitions, strict=True))

    def scores(states):
        return np.eye(symbols.transitions)[[right[tuple(row)] for row in states]]

    assert parse(bank, symbols, scores) == [(list(one.heads), list(one.relations)) for one in bank]


def test_any_scores_give_trees_with_one_root_even_those_that_are_not_numbers():
    bank = [*tiny_treebank.sentences(10), tiny_treebank.CROSSING]
    symbols = Symbols.of(bank)
    rng = np.random.default_rng(0)
    for scores in (
        lambda states: rng.normal(size=(len(states), symbols.transitions)),
        lambda states: np.full((len(states), symbols.transitions), np.nan),
        lambda states: np.full((len(states), symbols.transitions), -np.inf),
    ):
        for (heads, relations), one in zip(parse(bank, symbols, scores), bank, strict=True):
            assert len(heads) == len(relations) == len(one)
            assert heads.count(0) == 1
            assert is_projective(heads)


def test_kinds_are_numbered_shift_then_left_then_right():
    bank = treebank_of([(0, 1, 1)])
    sheet = Sheet(bank, Symbols.of(bank))
    assert (SHIFT, LEFT, RIGHT) == (0, 1, 2)
    assert sheet.legal().tolist() == [[True] + [False] * 6]
    sheet.advance(np.array([0]))
    sheet.advance(np.array([0]))
    assert sheet.legal().tolist() == [[True] * 7]
    sheet.advance(np.array([1 + 2]))  # LEFT with the last relation
    assert (sheet.states.heads[0, 1], sheet.states.relations[0, 1]) == (2, 2)
    sheet.advance(np.array([0]))
    sheet.advance(np.array([4 + 1]))  # RIGHT with the second
    assert (sheet.states.heads[0, 3], sheet.states.relations[0, 3]) == (2, 1)


def test_parsing_does_not_look_at_the_trees():
    bank = tiny_treebank.sentences(20)
    symbols = Symbols.of(bank)
    weights = np.random.default_rng(0).normal(size=(48, symbols.transitions))
    hidden = [Sentence(one.forms, one.upos, one.xpos, (0,) * len(one), ("root",) * len(one)) for one in bank]
    by_weights = [parse(sentences, symbols, lambda states: states @ weights) for sentences in (bank, hidden)]
    assert by_weights[0] == by_weights[1]
