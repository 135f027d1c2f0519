"""The residual additions of a pass, read off its autograd graph.

A sum is a residual addition where one of its terms, the skip, is a tensor that another term, a branch, came of by some
parameter or norm.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from gradlens.lens.autograd_graph import Edge, Graph, Node, operation

#: A projected skip is a convolution, a norm, and pooling at most.
_SHORT = 3
_POOLS = frozenset({"AvgPool2D", "AvgPool3D", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "Slice"})
#: Sums of two terms: a plain one, one that leans to either (``lerp``), one of which a product is a term.
_SUMS = frozenset({"Add", "Sub", "Lerp", "Addcmul"})
#: What cuts a tensor in parts.
_CUTS = frozenset({"Split", "SplitWithSizes", "Unbind"})
#: What makes a map larger: a way that does leads to a coarse map, which is added to a fine one.
_ENLARGES = re.compile("Upsample|PixelShuffle|RepeatInterleave|GridSampler|MaxUnpool")
#: Skips that one sum may have: a branch may hold a sum that is added as it is (an adapter's).
_NESTED = 2
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
        begins: what the branches read: the skip's source, and of coupled streams the sum on the other stream.
        outer: whether the same sum adds to a later skip, too.
    """

    node: Node
    sums: tuple[Node, ...]
    skip: Edge
    branches: frozenset[Edge]
    inside: frozenset[Node]
    begins: frozenset[Edge]
    outer: bool = False


def additions(graph: Graph) -> list[Addition]:
    """Return the residual additions of a graph, later ones after earlier ones.

    Raises:
        ValueError: the graph is too large.
    """
    sums = {node: _terms(graph, node) for node in graph.index if _is_sum(graph, node) and not _is_part(graph, node)}
    all_terms = {term for _, terms in sums.values() for term in terms}
    descent = _Descent(graph, all_terms.union(*(_other_parts(graph, term) for term in all_terms)))
    direct = [one for parts, terms in sums.values() for one in _residual(graph, parts, terms, descent)]
    found = _uncoupled(graph, direct)
    residual, inside = {one.node for one in found}, frozenset().union(*(one.inside for one in found))
    for node, (parts, terms) in sums.items():
        if node not in residual and node not in inside and len(terms) == 2:
            one = _projected(graph, parts, *terms) or _projected(graph, parts, *reversed(terms))
            found += [one] if one is not None else []
    return sorted(found, key=lambda one: graph.index[one.node])


def _is_sum(graph: Graph, node: Node) -> bool:
    return operation(node) in _SUMS and len(graph.inputs[node]) == 2 and graph.source((node, 0)) == (node, 0)


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


def _residual(graph: Graph, sums: tuple[Node, ...], terms: list[Edge], descent: _Descent) -> Iterator[Addition]:
    """Yield the additions to the latest of the terms that others came of, and to the one before (an adapter's).

    Where a tensor was cut in two, one part is the skip of what came of the other (a reversible network's first block).
    """
    found = 0
    for skip in sorted(terms, key=lambda term: -graph.index[term[0]]):
        for begins in (frozenset({skip}), _other_parts(graph, skip)):
            came = [term for term in terms if any(descent.holds(above, term[0]) for above in begins)]
            ways = {term: graph.between(begins, term) for term in came}
            branches = frozenset(term for term, way in ways.items() if _does_something(graph, way))
            if branches:
                inside = frozenset().union(*(ways[term] for term in branches))
                yield Addition(sums[0], sums, skip, branches, inside, begins, outer=found > 0)
                found += 1
                break
        if found == _NESTED:
            return


def _other_parts(graph: Graph, part: Edge) -> frozenset[Edge]:
    """Return the other half of the tensor that a part was cut of; none where it is a whole, or one of several."""
    name = operation(part[0])
    if name in _CUTS:
        others = {*graph.outputs(part[0])} - {part}
    elif name == "Slice" and graph.inputs[part[0]]:
        readers = graph.readers(graph.source(graph.inputs[part[0]][0][1]))
        others = {(node, 0) for node, _ in readers if operation(node) == name} - {part}
    else:
        others = set()
    return frozenset(others) if len(others) == 1 else frozenset()


def _uncoupled(graph: Graph, found: list[Addition]) -> list[Addition]:
    """Return the additions, of coupled streams (a reversible network's) each with a branch of its own.

    Where x₁ + f(x₂) is added to, x₂ being a sum that came of x₁, the branch is f and begins at x₂. A sum is of another
    stream where its own skip is not in the branch: it came of something else, or its stream goes on elsewhere.
    """
    sums = {one.node: one for one in found if not one.outer}
    goes_on: dict[Node, set[Node]] = {}
    for one in sums.values():
        goes_on.setdefault(one.skip[0], set()).add(one.node)

    def is_other(other: Addition, one: Addition) -> bool:
        if other.skip == one.skip:
            return bool(goes_on.get(other.node, set()) - one.inside - {one.node})
        return other.skip[0] not in one.inside

    kept = []
    for one in found:
        others = {(node, 0) for node in one.inside & sums.keys() - {one.node} if is_other(sums[node], one)}
        if others:
            begins = frozenset({one.skip, *others})
            ways = {term: graph.between(begins, term) for term in one.branches - begins}
            branches = frozenset(term for term, way in ways.items() if _does_something(graph, way))
            inside = frozenset().union(*(ways[term] for term in branches))
            one = replace(one, branches=branches, inside=inside, begins=begins)
        kept += [one] if one.branches else []
    return kept


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
        way = graph.between({edge}, long) if path[-1] in readers and _projects(graph, path) else set()
        # Others may read it, too (a feature pyramid), if not on the way.
        if len(way & readers - {path[-1]}) == 1 and _branches(graph, edge, way):
            return Addition(sums[0], sums, edge, frozenset({long}), frozenset(way), frozenset({edge}))
    return None


def _projects(graph: Graph, path: Iterable[Node]) -> bool:
    """Whether a way holds a product with a parameter, and besides norms and pooling at most."""
    products = [node for node in path if node in graph.parameters and node not in graph.calls]
    return len(products) == 1 and all(
        node in graph.parameters or node in graph.calls or operation(node) in _POOLS for node in path
    )


def _branches(graph: Graph, start: Edge, way: set[Node]) -> bool:
    """Whether a way from a tensor holds two products with parameters at least, and none with what is not of it.

    A gate of its own is part of a branch (squeeze and excitation); what scales another tensor is none, and a coarse map
    that is added to a fine one (a feature pyramid's) is none either.
    """
    if any(_ENLARGES.search(operation(node)) or getattr(node, "_saved_transposed", False) for node in way):
        return False
    factors = [edge for node in way if operation(node) in ("Mul", "Div") for _, edge in graph.inputs[node]]
    own = all(edge[0] in way or graph.source(edge) == start for edge in factors)
    return own and sum(node in graph.parameters and node not in graph.calls for node in way) > 1
