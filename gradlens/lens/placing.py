"""Giving sites their placement, and finding blocks, from the first passes that are recorded."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from gradlens.errors import one_line
from gradlens.lens.architecture import Architecture, Call
from gradlens.lens.autograd_graph import Graph, Node
from gradlens.lens.guard import PASSES, Guard
from gradlens.lens.observations import Observations
from gradlens.lens.sites import is_inside, stacks
from gradlens.lens.structure import Facts, structure

#: Module path to its number in its stack, and whether it is the first there.
Blocks: TypeAlias = Mapping[str, tuple[int, bool]]

#: Passes that are read at most: the two networks of a GAN, parts that are called one by one, norms that show themselves
#: late. Those that show no norm anew are not read, but for the very first: a model without norms is wired, too.
_MOST = 64


class Placing:
    """Reads the architecture off the autograd graphs of the first passes; nothing is run for it.

    Args:
        model: any module.
        observed: takes what the audit has to say.
        guard: of the lens.
    """

    def __init__(self, model: nn.Module, observed: Observations, guard: Guard) -> None:
        self._model, self._observed, self._guard = model, observed, guard
        self._read: set[str] = set()
        self._calls: list[Call] = []
        self._handed_on: dict[str, Node] = {}
        self._open, self._left = False, _MOST
        #: How the model is wired, as far as passes have shown it.
        self.structure: Facts = {}
        self._structure = dict(stacks(model))
        #: Called with the placements, by site, and the blocks that a pass has shown and the structure had not.
        self.on_read: Callable[[Mapping[str, str], Blocks], None] = lambda words, blocks: None

    @property
    def read(self) -> frozenset[str]:
        """The sites of the norms that passes have shown."""
        return frozenset(self._read)

    def begin(self) -> None:
        """Begin a pass of the model or of a part."""
        self.forget()
        self._open = self._left > 0

    def hand_on(self, site: str, alias: Tensor) -> None:
        """Note what a norm is handed in place of its input."""
        if self._open:
            self._handed_on[site] = alias.grad_fn

    def call(self, site: str, output: Tensor) -> None:
        """Note what a norm has returned."""
        if self._open:
            self._calls.append((site, output.grad_fn, self._handed_on.pop(site, None)))

    def end(self, outputs: Iterable[Tensor]) -> None:
        """Read the pass that ends, unless it is not the first, and all its norms are known.

        Args:
            outputs: those with a graph; none where the pass raised, or had none.
        """
        calls, made = self._calls, [output.grad_fn for output in outputs]
        self.forget()
        sites = {site for site, _, _ in calls}
        first = self._left == _MOST and torch._C._get_tracing_state() is None  # whose trace would know of it
        if not made or (sites <= self._read and not first):
            return
        self._left -= 1
        try:
            architecture = Architecture(Graph(made, {node: alias for _, node, alias in calls}))
            words, found = architecture.placements(calls), architecture.blocks(self._model, calls)
            facts = structure(architecture, self._model, calls)
        except PASSES:
            raise
        except Exception as error:
            if self._guard.strict:
                raise
            if sites:
                said = f"Where norms stand could not be read off the model's graph ({one_line(error)})."
                self._observed.notes.add(said)
            return
        self._read |= sites
        for name, told in facts.items():
            self.structure.setdefault(name, []).extend(one for one in told if one not in self.structure[name])
        if not sites:
            return
        blocks = self._new(found)
        self._structure |= blocks
        self.on_read(_as_siblings(words, architecture.blind(calls) - words.keys(), self._structure), blocks)

    def forget(self) -> None:
        """Let go of nodes, which keep their graph alive."""
        self._calls, self._open = [], False
        self._handed_on.clear()

    def _new(self, found: Iterable[list[str]]) -> Blocks:
        """Return the blocks of stacks that have nothing to do with those which the structure shows."""
        blocks: dict[str, tuple[int, bool]] = {}
        for paths in found:
            if not any(is_inside(a, b) or is_inside(b, a) for a in paths for b in self._structure):
                blocks |= {path: (index, index == 0) for index, path in enumerate(paths)}
        return blocks


def _as_siblings(words: Mapping[str, str], blind: Iterable[str], blocks: Iterable[str]) -> dict[str, str]:
    """Return the placements, those that a stack's first or last block cannot show as in its other blocks.

    The input of the first may have no gradient, so that its skip is not in the graph; nothing follows the last.

    Args:
        words: sites to what the graph says.
        blind: sites of which it can say nothing.
        blocks: paths of all blocks.
    """
    places = {site: _in_block(site, blocks) for site in (*words, *blind)}
    alike: dict[tuple[str, str], set[str]] = {}
    for site, place in places.items():
        if place is not None and words.get(site) not in (None, "embed", "final"):
            alike.setdefault(place, set()).add(words[site])
    found = dict(words)
    for site, place in places.items():
        others = alike.get(place, set()) if place is not None else set()
        if len(others) == 1 and (site not in words or (words[site] in ("embed", "final") and others == {"post_add"})):
            found |= {site: next(iter(others))}
    return found


def _in_block(site: str, blocks: Iterable[str]) -> tuple[str, str] | None:
    """Return the stack of the block that a site is in, and its path inside of the block."""
    block = next((one for one in blocks if is_inside(site, one)), None)
    return None if block is None else (block.rpartition(".")[0], site[len(block) :])
