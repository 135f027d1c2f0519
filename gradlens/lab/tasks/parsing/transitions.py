"""The arc-standard transition system (Nivre 2004) and its static oracle, for many sentences at a time.

A sentence of n words is parsed by 2n transitions from a stack that holds the root, word 0, and a buffer that holds the
words. SHIFT moves the buffer's first word onto the stack; LEFT makes the top of the stack the head of the word below
it, which leaves the stack; RIGHT makes the word below the head of the top, which leaves the stack.

Shapes: S sentences, A of them still unfinished, L words in the longest.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SHIFT, LEFT, RIGHT = 0, 1, 2
#: What stands for a head, and for a relation, where there is no arc.
NONE = -1
#: The positions a state is seen through, and how many of them, the last, are children and so have a relation.
POSITIONS, CHILDREN = 18, 12


def is_projective(heads: Sequence[int]) -> bool:
    """Whether no two arcs cross, the one from the root (word 0) included: the trees that the system can build.

    >>> is_projective((2, 0, 2)), is_projective((3, 4, 0, 3))
    (True, False)
    """
    head = np.asarray(heads)
    word = np.arange(1, head.size + 1)
    left, right = np.minimum(head, word), np.maximum(head, word)
    crosses = (left[:, None] < left) & (left < right[:, None]) & (right[:, None] < right)
    return not crosses.any()


class States:
    """The states of S sentences that step together; the longest go first, so that the unfinished are the first A.

    Words are numbered as in CoNLL-U; L + 1 stands for "no word".

    Args:
        lengths: words in each sentence [S], descending.

    Attributes:
        heads: found so far [S, L + 2]; ``NONE`` where none is.
        relations: of each word to its head [S, L + 2]; ``NONE`` where it has none.
    """

    def __init__(self, lengths: Ints) -> None:
        if (np.diff(lengths) > 0).any():
            raise ValueError("The longest sentences go first.")
        count, longest = len(lengths), int(lengths.max())
        self._lengths = lengths
        self._no_word = longest + 1
        self._steps = 0
        self.heads = np.full((count, longest + 2), NONE)
        self.relations = np.full((count, longest + 2), NONE)
        self._stack = np.zeros((count, longest + 1), dtype=np.int64)  # the root lies on it
        self._size = np.ones(count, dtype=np.int64)  # of the stack
        self._first = np.ones(count, dtype=np.int64)  # in the buffer
        #: Leftmost, rightmost, second leftmost and second rightmost child so far of each word.
        self._children = np.full((4, count, longest + 2), self._no_word)
        self._attached = np.zeros((count, longest + 2), dtype=np.int64)  # children so far

    @property
    def active(self) -> int:
        """A, the number of unfinished sentences."""
        return int((2 * self._lengths > self._steps).sum())

    def positions(self) -> Ints:
        """Return the words that each unfinished state is seen through, [A, 18]: Chen & Manning 2014, section 3.1.

        They are s1, s2, s3, b1, b2, b3; then for s1, and again for s2: leftmost, rightmost, second leftmost and
        second rightmost child, the leftmost child's leftmost and the rightmost child's rightmost.
        """
        rows = np.arange(self.active)
        leftmost, rightmost, second_left, second_right = self._children
        found = [self._on_stack(depth) for depth in (1, 2, 3)] + [self._in_buffer(ahead) for ahead in (0, 1, 2)]
        for top in found[:2]:
            left, right = leftmost[rows, top], rightmost[rows, top]
            found += [left, right, second_left[rows, top], second_right[rows, top]]
            found += [leftmost[rows, left], rightmost[rows, right]]
        return np.stack(found, axis=1)

    def legal(self) -> Bools:
        """Return whether each unfinished state allows SHIFT, LEFT and RIGHT, [A, 3].

        The root takes its one word last, when the buffer is empty, so that every tree has one root.
        """
        count = self.active
        words = self._size[:count] >= 3  # two on top of the root
        rest = self._first[:count] <= self._lengths[:count]
        last = (self._size[:count] == 2) & ~rest
        return np.stack([rest, words, words | last], axis=1)

    def oracle(self, heads: Ints) -> Ints:
        """Return the kind of transition, [A], that leads to the projective trees ``heads`` [S, L + 2].

        An arc is made as soon as it is right and the word that leaves has all its children; else SHIFT.
        """
        rows, top, below = np.arange(self.active), self._on_stack(1), self._on_stack(2)
        wanted = (heads[rows] == top[:, None]).sum(1)  # children of the top
        left = (below != 0) & (heads[rows, below] == top)
        right = (heads[rows, top] == below) & (self._attached[rows, top] == wanted)
        return np.where(left, LEFT, np.where(right, RIGHT, SHIFT))

    def apply(self, kinds: Ints, relations: Ints) -> None:
        """Make one transition in each unfinished state.

        Args:
            kinds: SHIFT, LEFT or RIGHT, legal in its state [A].
            relations: of the new arc [A]; not looked at for SHIFT.
        """
        top, below = self._on_stack(1), self._on_stack(2)
        shifts, arcs = np.flatnonzero(kinds == SHIFT), np.flatnonzero(kinds != SHIFT)
        self._stack[shifts, self._size[shifts]] = self._first[shifts]
        self._size[shifts] += 1
        self._first[shifts] += 1
        lefts, rights = np.flatnonzero(kinds == LEFT), np.flatnonzero(kinds == RIGHT)
        for rows, head, child, outer, second in ((lefts, top, below, 0, 2), (rights, below, top, 1, 3)):
            head, child = head[rows], child[rows]
            self.heads[rows, child] = head
            self.relations[rows, child] = relations[rows]
            self._attached[rows, head] += 1
            # A later child lies further out, on either side.
            self._children[second, rows, head] = self._children[outer, rows, head]
            self._children[outer, rows, head] = child
        self._size[arcs] -= 1
        self._stack[lefts, self._size[lefts] - 1] = top[lefts]
        self._steps += 1

    def _on_stack(self, depth: int) -> Ints:
        """Return the word at a depth of each unfinished stack, [A]; depth 1 is the top."""
        size = self._size[: self.active]
        rows = np.arange(size.size)
        return np.where(size >= depth, self._stack[rows, np.maximum(size - depth, 0)], self._no_word)

    def _in_buffer(self, ahead: int) -> Ints:
        """Return the word at a place of each unfinished buffer, [A]; place 0 is the first."""
        count = self.active
        word = self._first[:count] + ahead
        return np.where(word <= self._lengths[:count], word, self._no_word)
