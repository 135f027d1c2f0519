"""Where norms stand and what the blocks are, read off the autograd graph of one pass, whatever the family.

A sum is a residual addition where one of its terms, the skip, is a tensor that another term, a branch, came of by some
parameter or norm. What all skips lead through is the stream. A norm's placement follows from who else reads what it
reads, and who reads what it returns.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from gradlens.lens.autograd_graph import Edge, Graph, Node, operation
from gradlens.lens.world import class_of

#: A call of a norm: its site, the node behind its output, and that behind the alias that it was handed (None where
#: its input had no gradient).
Call: TypeAlias = tuple[str, Node, Node | None]

_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
_PRODUCTS = frozenset({"Bmm", "Baddbmm"})
#: What happens to scores before a softmax is taken of them, where it is not looked through.
_MASKED = frozenset({"Add", "Tanh", "Maximum", "Where"})
#: What queries and keys pass on their way to their product, rotations of positions among it.
_TURNS = frozenset({"Mul", "Add", "Sub", "Neg", "Cat", "Stack", "Slice", "Select", "Index", "Split", "Unbind"})
#: A projected skip is a convolution, a norm, and pooling at most.
_SHORT = 3
#: Nodes times sources of terms, above which a graph is too large to be read: 200 MB of bits.
_MOST_BITS = 1_600_000_000


@dataclass(frozen=True)
class Addition:
    """One residual addition, of two or more terms.

    Attributes:
        node: the operation, the last one of a sum.
        sums: the operation, and those whose sums are terms of it.
        skip: the source of the term that is the stream as it was, or of a projected skip what that was made of.
        branches: the sources of the terms that came of it.
        inside: the operations between.
    """

    node: Node
    sums: tuple[Node, ...]
    skip: Edge
    branches: frozenset[Edge]
    inside: frozenset[Node]


def additions(graph: Graph) -> list[Addition]:
    """Return the residual additions of a graph, later ones after earlier ones.

    Raises:
        ValueError: the graph is too large.
    """
    sums = {node: _terms(graph, node) for node in graph.index if _is_sum(graph, node) and not _is_part(graph, node)}
    descent = _Descent(graph, {term for _, terms in sums.values() for term in terms})
    found = {node: one for node, (parts, terms) in sums.items() if (one := _residual(graph, parts, terms, descent))}
    inside = frozenset().union(*(one.inside for one in found.values()))
    for node, (parts, terms) in sums.items():
        if node not in found and node not in inside and len(terms) == 2:
            one = _projected(graph, parts, *terms) or _projected(graph, parts, *reversed(terms))
            found |= {node: one} if one is not None else {}
    return sorted(found.values(), key=lambda one: graph.index[one.node])


def _is_sum(graph: Graph, node: Node) -> bool:
    return operation(node) in ("Add", "Sub") and len(graph.inputs[node]) == 2 and graph.source((node, 0)) == (node, 0)


def _is_part(graph: Graph, node: Node) -> bool:
    """Whether a sum is only read as a term of another."""
    readers = graph.readers((node, 0))
    return len(readers) == 1 and _is_sum(graph, readers[0][0])


def _terms(graph: Graph, node: Node) -> tuple[tuple[Node, ...], list[Edge]]:
    """Return a sum with those that are only terms of it, and the sources of all other terms."""
    parts, terms = [node], []
    for part in parts:  # which grows meanwhile
        for _, edge in graph.inputs[part]:
            source = graph.source(edge)
            if _is_sum(graph, source[0]) and _is_part(graph, source[0]):
                parts.append(source[0])
            else:
                terms.append(source)
    return tuple(parts), terms


class _Descent:
    """Which operations came of which of some tensors."""

    def __init__(self, graph: Graph, tensors: Iterable[Edge]) -> None:
        self._bits = {tensor: 1 << number for number, tensor in enumerate(tensors)}
        if len(self._bits) * len(graph.index) > _MOST_BITS:
            raise ValueError(f"its graph of {len(graph.index)} operations is too large")
        self._found: dict[Node, int] = {}
        for node, inputs in graph.inputs.items():
            own = 0
            for _, edge in inputs:
                own |= self._found[edge[0]] | self._bits.get(edge, 0)
            self._found[node] = own

    def holds(self, above: Edge, node: Node) -> bool:
        """Whether an operation came of a tensor."""
        return bool(self._found[node] & self._bits[above])


def _residual(graph: Graph, sums: tuple[Node, ...], terms: list[Edge], descent: _Descent) -> Addition | None:
    """Return the addition to the latest of the terms that others came of; None where no term came of another."""
    for skip in sorted(terms, key=lambda term: -graph.index[term[0]]):
        ways = {term: graph.between(skip, term) for term in terms if descent.holds(skip, term[0])}
        branches = frozenset(term for term, way in ways.items() if _does_something(graph, way))
        if branches:
            return Addition(sums[0], sums, skip, branches, frozenset().union(*(ways[term] for term in branches)))
    return None


def _does_something(graph: Graph, way: Iterable[Node]) -> bool:
    return any(node in graph.parameters or node in graph.calls for node in way)


def _projected(graph: Graph, sums: tuple[Node, ...], short: Edge, long: Edge) -> Addition | None:
    """Return the addition of a branch to a projection of what it came of (a ResNet's shortcut), if it is one."""
    path: list[Node] = []
    edge = short
    while len(path) < _SHORT and len(graph.inputs[edge[0]]) == 1:
        path.append(edge[0])
        edge = graph.source(graph.inputs[edge[0]][0][1])
        readers = {node for node, _ in graph.readers(edge)}
        way = graph.between(edge, long) if len(readers) == 2 and path[-1] in readers else set()
        projects = any(node in graph.parameters and node not in graph.calls for node in path)
        if projects and len(way) > len(path) and way & readers - {path[-1]}:
            return Addition(sums[0], sums, edge, frozenset({long}), frozenset(way))
    return None


class Architecture:
    """What the additions of a pass say of its norms and blocks.

    Args:
        graph: of one pass.

    Raises:
        ValueError: the graph is too large.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.additions = additions(graph)
        self._at = {one.node: one for one in self.additions}
        self._inside = frozenset().union(*(one.inside for one in self.additions))
        #: The branches that a sum adds, also by its parts.
        self._added = {part: one.branches for one in self.additions for part in one.sums}
        #: What becomes the stream, be it pooled or bent on the way.
        self._begins = {graph.loose_source(one.skip) for one in self.additions} | {one.skip for one in self.additions}
        self._stream = self._find_stream()
        self._behind = self._find_behind()

    def placements(self, calls: Iterable[Call]) -> dict[str, str]:
        """Return where norms stand, by site: of several calls the most frequent; one that has no word is left out."""
        words: dict[str, Counter[str]] = {}
        for site, node, alias in calls:
            if alias is not None and node in self.graph.index and (word := self._word(node)):
                words.setdefault(site, Counter())[word] += 1
        return {site: counted.most_common(1)[0][0] for site, counted in words.items()}

    def blocks(self, model: nn.Module, calls: Iterable[Call]) -> list[list[str]]:
        """Return the blocks of each stack, by module path: equal modules that hold what successive branches use.

        Args:
            model: whose pass it was.
            calls: of its norms.
        """
        homes = {id(p): path.split(".")[:-1] for path, p in reversed(list(model.named_parameters()))}
        norms = {node: site.partition("#")[0].split(".") for site, node, _ in calls}
        found = []
        for stack in self._stacks():
            paths = []
            for one in stack:
                used = [homes.get(id(p)) for node in one.inside for p in self.graph.parameters.get(node, ())]
                used += [norms[node] for node in one.inside if node in norms]
                paths.append(_common([path for path in used if path is not None]))
            found.append(_blocks(model, paths))
        return [blocks for blocks in found if blocks]

    def _find_stream(self) -> set[Node]:
        """Return what skips lead through: all operations above them, but at an addition for its branch."""
        above: set[Node] = set()
        stack = [one.skip[0] for one in self.additions]
        while stack:
            node = stack.pop()
            if node not in above:
                above.add(node)
                one = self._at.get(node)
                stack += [edge[0] for _, edge in self.graph.inputs[node]] if one is None else [one.skip[0]]
        return above

    def _find_behind(self) -> set[Node]:
        """Return the operations that came of a residual addition."""
        behind: set[Node] = set()
        for node, inputs in self.graph.inputs.items():
            if any(edge[0] in self._at or edge[0] in behind for _, edge in inputs):
                behind.add(node)
        return behind

    def _stacks(self) -> list[list[Addition]]:
        """Return the additions of each stack in order: nothing but norms, activations and pooling lies between."""
        stacks: list[list[Addition]] = []
        last: dict[Node, list[Addition]] = {}
        for one in self.additions:
            before = self._before(one)
            stack = last.pop(before.node, None) if before is not None else None
            if stack is None:
                stacks.append(stack := [])
            stack.append(one)
            last[one.node] = stack
        return [stack for stack in stacks if len(stack) > 1]

    def _before(self, one: Addition) -> Addition | None:
        """Return the addition before this one on its stream."""
        edge = self.graph.loose_source(one.skip)
        while edge[0] in self.graph.calls and self.graph.inputs[edge[0]]:
            edge = self.graph.loose_source(self.graph.inputs[edge[0]][0][1])
        return self._at.get(edge[0])

    def _word(self, norm: Node) -> str:
        """Return the placement of a call; empty where it has none of these."""
        graph, inside = self.graph, norm in self._inside
        if not graph.inputs[norm]:
            return ""
        taken = graph.inputs[norm][0][1]
        source, readers = graph.source(taken), graph.readers((norm, 0))
        if any(norm in one.inside and one.skip == source for one in self.additions):
            return "pre_branch"
        if readers and all((norm, 0) in self._added.get(reader, ()) for reader, _ in readers):
            return "post_branch"
        if self._meets_keys(norm):
            return "qk"
        if norm in self._stream and (norm, 0) in self._begins:
            if source[0] in self._at:
                return "post_add"
            if norm not in self._behind:
                return "embed"
        if not inside and norm not in self._stream:
            before = graph.loose_source(taken)[0]
            if before in self._at:
                return self._after_the_last(self._at[before])
            if before in graph.calls and self._word(before) == "post_add":
                return "final"
        return "in_branch" if inside else ""

    def _after_the_last(self, one: Addition) -> str:
        """Tell a norm after a stack's last addition: the stack's own, or the last block's where each ends with one."""
        before = one.skip[0]
        if before in self._at:
            return "final"
        if before in self.graph.calls and self._word(before) == "post_add":
            return "post_add"
        at_ends = any(
            self._word(node) in ("pre_branch", "post_branch") for node in one.inside & self.graph.calls.keys()
        )
        return "final" if at_ends else "post_add"

    def _meets_keys(self, norm: Node) -> bool:
        """Whether a norm's output is multiplied, as queries or keys, by keys or queries."""
        readers, met = list(self.graph.readers((norm, 0))), set()
        for node, place in readers:  # which grows meanwhile
            name = operation(node)
            if _ATTENTION.search(name):
                if place < 2:
                    return True
            elif name in _PRODUCTS and len(self.graph.inputs[node]) == 2:
                if self._softened(node):
                    return True
            elif name in _TURNS and node not in self._at and node not in met:
                met.add(node)
                readers += [reader for edge in self.graph.outputs(node) for reader in self.graph.readers(edge)]
        return False

    def _softened(self, node: Node) -> bool:
        """Whether a softmax is taken of a product, a mask or a bias having been added."""
        readers = [reader for reader, _ in self.graph.readers((node, 0))]
        return any(
            "Softmax" in operation(reader) or (operation(reader) in _MASKED and self._softened(reader))
            for reader in readers
        )


def _common(paths: list[list[str]]) -> list[str]:
    """Return what all paths begin with."""
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return common


def _blocks(model: nn.Module, paths: list[list[str]]) -> list[str]:
    """Return the innermost modules that hold one branch or several, are of one class, and follow each other.

    Where the first branch is of another kind (a convolution of positions), the blocks are those after it.
    """
    for first in (0, 1):
        depths = range(min(map(len, paths[first:]), default=0), 0, -1)
        found = next((modules for depth in depths if (modules := _equal(model, paths[first:], depth))), [])
        while found and len(outer := _equal(model, [path.split(".")[:-1] for path in found], None)) == len(found):
            found = outer  # what holds nothing else
        if found:
            return found
    return []


def _equal(model: nn.Module, paths: list[list[str]], depth: int | None) -> list[str]:
    """Return the modules at one depth of the paths if they are two or more, of one class, and come one by one."""
    ordered = [".".join(path[:depth]) for path in paths]
    modules = list(dict.fromkeys(ordered))
    changes = sum(here != there for here, there in itertools.pairwise(ordered))
    alike = len(modules) == changes + 1 > 1 and len({class_of(model.get_submodule(path)) for path in modules}) == 1
    return modules if alike else []
