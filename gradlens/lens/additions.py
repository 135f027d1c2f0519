"""The residual additions of a pass, read off its autograd graph.

A sum is a residual addition where one of its terms, the skip, is a tensor that another term, a branch, came of by some
parameter or norm.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gradlens.lens.autograd_graph import Edge, Graph, Node, operation

#: A projected skip is a convolution, a norm, and pooling at most.
_SHORT = 3
_POOLS = frozenset({"AvgPool2D", "AvgPool3D", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "Slice"})
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
        outer: whether the same sum adds to a later skip, too.
    """

    node: Node
    sums: tuple[Node, ...]
    skip: Edge
    branches: frozenset[Edge]
    inside: frozenset[Node]
    outer: bool = False


def additions(graph: Graph) -> list[Addition]:
    """Return the residual additions of a graph, later ones after earlier ones.

    Raises:
        ValueError: the graph is too large.
    """
    sums = {node: _terms(graph, node) for node in graph.index if _is_sum(graph, node) and not _is_part(graph, node)}
    descent = _Descent(graph, {term for _, terms in sums.values() for term in terms})
    found = [one for parts, terms in sums.values() for one in _residual(graph, parts, terms, descent)]
    residual, inside = {one.node for one in found}, frozenset().union(*(one.inside for one in found))
    for node, (parts, terms) in sums.items():
        if node not in residual and node not in inside and len(terms) == 2:
            one = _projected(graph, parts, *terms) or _projected(graph, parts, *reversed(terms))
            found += [one] if one is not None else []
    return sorted(found, key=lambda one: graph.index[one.node])


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


def _residual(graph: Graph, sums: tuple[Node, ...], terms: list[Edge], descent: _Descent) -> Iterator[Addition]:
    """Yield the additions to the latest of the terms that others came of, and to the one before (an adapter's)."""
    found = 0
    for skip in sorted(terms, key=lambda term: -graph.index[term[0]]):
        ways = {term: graph.between(skip, term) for term in terms if descent.holds(skip, term[0])}
        branches = frozenset(term for term, way in ways.items() if _does_something(graph, way))
        if branches:
            inside = frozenset().union(*(ways[term] for term in branches))
            yield Addition(sums[0], sums, skip, branches, inside, outer=found > 0)
            found += 1
        if found == _NESTED:
            return


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
        if way & readers - {path[-1]} and _projects(graph, path) and _branches(graph, edge, way):
            return Addition(sums[0], sums, edge, frozenset({long}), frozenset(way))
    return None


def _projects(graph: Graph, path: Iterable[Node]) -> bool:
    """Whether a way holds a product with a parameter, and besides norms and pooling at most."""
    products = [node for node in path if node in graph.parameters and node not in graph.calls]
    return len(products) == 1 and all(
        node in graph.parameters or node in graph.calls or operation(node) in _POOLS for node in path
    )


def _branches(graph: Graph, start: Edge, way: set[Node]) -> bool:
    """Whether a way from a tensor holds two products with parameters at least, and none with what is not of it.

    A gate of its own is part of a branch (squeeze and excitation); what scales another tensor is none.
    """
    factors = [edge for node in way if operation(node) in ("Mul", "Div") for _, edge in graph.inputs[node]]
    own = all(edge[0] in way or graph.source(edge) == start for edge in factors)
    return own and sum(node in graph.parameters and node not in graph.calls for node in way) > 1
