"""The autograd graph of one forward pass, read as the tensors that flowed: who made each, and who read it.

A node stands for an operation, an edge (node, k) for its k-th output. What only rearranges or scales a tensor (a view,
a cast, dropout, a product with a parameter) is looked through: the tensor before it is the *source* of the one behind.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from torch import nn

#: An operation, as autograd shows it: hashable, with ``next_functions``.
Node: TypeAlias = Any
#: One output of an operation.
Edge: TypeAlias = tuple[Node, int]


def named(names: str) -> frozenset[str]:
    """Return the names of operations that a text lists."""
    return frozenset(names.split())


#: Operations whose output is their one input that depends on data, arranged, cast or scaled otherwise, with constants
#: or parameters added or put beside it.
_SAME = named(
    "View UnsafeView ReshapeAlias Transpose T Permute Expand Squeeze Unsqueeze Alias AsStrided Clone ToCopy Copy "
    "NativeDropout FusedDropout ConstantPadNd Roll Flip Repeat Mul Div Add Sub Rsub Neg Cat Stack MaskedFill Where "
    "IndexAdd Addcmul ViewAsComplex ViewAsReal"
)
#: Operations that keep or pool a part of their input, or bend it, entry by entry.
_LOOSE = named(
    "Slice Select Index IndexSelect Gather Split SplitWithSizes Unbind Sum Mean Max Amax MaxPool2DWithIndices "
    "MaxPool3DWithIndices AvgPool2D AvgPool3D AdaptiveAvgPool2D AdaptiveAvgPool3D Relu Gelu Silu Mish Elu LeakyRelu "
    "Hardtanh Hardswish Tanh Sigmoid Softplus Clamp"
)
#: Autograd functions of one input that hand it on as it is: DTensor's.
_OF_DTENSORS = named("ToTorchTensor FromTorchTensor Redistribute")
#: Autograd functions of several inputs, each of which is handed on: FSDP's, DDP's, and those of full backward hooks.
_HANDED_ON = named("RegisterPostBackwardFunction DDPSink BackwardHookFunction")
#: What makes data of a parameter: looking up rows.
_LOOK_UP = named("Embedding EmbeddingBag Index IndexSelect Gather")
#: Products of data with a parameter, also of data without a gradient, of which the graph shows nothing.
_PRODUCTS = named("Addmm Mm Bmm Baddbmm Convolution ConvolutionOverrideable MkldnnConvolution")
#: Where several inputs may be one and the same.
_JOINS = frozenset({"Add", "Sub", "Mul", "Cat", "Stack"})


def operation(node: Node) -> str:
    """Return the operation's name, as in "Add" for AddBackward0."""
    name = type(node).__name__
    return _SUFFIX.sub("", name if "Backward" in name else str(node.name())).strip("_")


_SUFFIX = re.compile(r"Backwards?\d*$")


def shape(edge: Edge) -> tuple[int, ...]:
    """Return the shape of a tensor that flowed; empty where its node does not say."""
    told = getattr(edge[0], "_input_metadata", ())
    return tuple(int(size) for size in told[edge[1]].shape) if edge[1] < len(told) else ()


class Graph:
    """The graph below some tensors, each norm's call in it one node.

    Args:
        outputs: nodes that made the tensors to begin with.
        calls: the node behind each call of a norm, to the node of the alias that it was handed; None for one whose
            input had no gradient.

    Attributes:
        index: each node's place in an order in which operations come after what they read.
        inputs: what an operation read that depends on data, with its place among the arguments.
        parameters: of operations that read a parameter, or what was made of parameters alone: these.
    """

    def __init__(self, outputs: Iterable[Node], calls: Mapping[Node, Node | None]) -> None:
        self.calls = calls
        self.index: dict[Node, int] = {}
        self.inputs: dict[Node, list[tuple[int, Edge]]] = {}
        self.parameters: dict[Node, frozenset[nn.Parameter]] = {}
        #: Sums on the way to whose source something was added that had no gradient.
        self._partial: set[Node] = set()
        self._source: dict[Node, Edge] = {}
        self._loose: dict[Node, Edge] = {}
        self._readers: dict[Edge, list[tuple[Node, int]]] = {}
        self._outputs: dict[Node, list[Edge]] = {}
        self._data: set[Node] = set()
        #: Of what is no data: the parameters that it was made of.
        self._made_of: dict[Node, frozenset[nn.Parameter]] = {}
        for node in self._ordered(outputs):
            self._add(node)

    def source(self, edge: Edge) -> Edge:
        """Return what a tensor was before it was rearranged or scaled."""
        return self._through(edge, self._source)

    def loose_source(self, edge: Edge) -> Edge:
        """Return what a tensor was before it was rearranged, scaled, pooled, cut, or bent entry by entry."""
        return self._through(edge, self._loose)

    def is_partial(self, edge: Edge) -> bool:
        """Whether something that had no gradient was added between a tensor and its source: perhaps a skip."""
        return edge[0] in self._partial

    def readers(self, edge: Edge) -> list[tuple[Node, int]]:
        """Return who read a source, in whatever arrangement: the operations, and which argument it was to each."""
        return self._readers.get(edge, [])

    def outputs(self, node: Node) -> list[Edge]:
        """Return the outputs of an operation that somebody read."""
        return self._outputs.get(node, [])

    def between(self, above: Collection[Edge], below: Edge) -> set[Node]:
        """Return the operations on all ways from some tensors to another that lead through no other of them.

        The last operation is among them; without a way there are none.
        """
        starts = {edge[0] for edge in above}
        first = min(self.index[node] for node in starts)
        stack, met = [below[0]], set()
        while stack:
            node = stack.pop()
            if node not in met and node not in starts and self.index[node] > first:
                met.add(node)
                stack += [edge[0] for _, edge in self.inputs[node]]
        inside: set[Node] = set()
        for node in sorted(met, key=self.index.__getitem__):
            if any(edge in above or edge[0] in inside for _, edge in self.inputs[node]):
                inside.add(node)
        return inside if below[0] in inside else set()

    # ------------------------------------------------------------------ building

    def _ordered(self, outputs: Iterable[Node]) -> Iterator[Node]:
        """Yield nodes after all that they read; without recursion, which Python limits."""
        seen: set[Node] = set()
        stack: list[tuple[Node, bool]] = [(node, False) for node in outputs]
        while stack:
            node, done = stack.pop()
            if done:
                yield node
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack += [(edge[0], False) for edge in self._read(node) if edge[0] is not None and edge[0] not in seen]

    def _read(self, node: Node) -> tuple[Edge, ...]:
        """Return what an operation read; a norm's call read what it was handed."""
        if node not in self.calls:
            return tuple(node.next_functions)
        alias = self.calls[node]
        return () if alias is None else tuple(alias.next_functions[:1])

    def _add(self, node: Node) -> None:
        self.index[node] = len(self.index)
        name, read = operation(node), self._read(node)
        self.inputs[node] = kept = [(place, edge) for place, edge in enumerate(read) if edge[0] in self._data]
        made_of: frozenset[nn.Parameter] = frozenset().union(*(self._made_of.get(edge[0], ()) for edge in read))
        variable = getattr(node, "variable", None)
        if isinstance(variable, nn.Parameter):
            self._made_of[node] = frozenset({variable})
            return
        product = name in _PRODUCTS and any(edge[0] is None for edge in read)
        if not (kept or node in self.calls or name in _LOOK_UP or product or variable is not None):
            self._made_of[node] = made_of
            return
        self._data.add(node)
        if made_of:
            self.parameters[node] = made_of
        if node not in self.calls and name not in _HANDED_ON:
            sources = {self.source(edge) for _, edge in kept}
            alike = len(sources) == 1 and (len(kept) == 1 or name in _JOINS)
            loose = {self.loose_source(edge) for _, edge in kept}
            if alike and name in _SAME | _OF_DTENSORS:
                self._source[node] = sources.pop()
                unseen = name in ("Add", "Sub") and any(edge[0] is None for edge in read)
                if unseen or any(edge[0] in self._partial for _, edge in kept):
                    self._partial.add(node)
            if len(loose) == 1 and (len(kept) == 1 or name in _JOINS) and name in _SAME | _LOOSE | _OF_DTENSORS:
                self._loose[node] = loose.pop()
        if node not in self._source and name not in _HANDED_ON:
            for position, edge in kept:
                source = self.source(edge)
                if source not in self._readers:
                    self._outputs.setdefault(source[0], []).append(source)
                self._readers.setdefault(source, []).append((node, position))

    def _through(self, edge: Edge, sources: Mapping[Node, Edge]) -> Edge:
        while edge[0] is not None and edge[0] not in self.calls and operation(edge[0]) in _HANDED_ON:
            read = edge[0].next_functions
            if edge[1] >= len(read) or read[edge[1]][0] not in self._data:
                return edge
            edge = read[edge[1]]
        return sources.get(edge[0], edge)
