"""How a model is wired, read off the graph of one pass besides placements: what analyses hold against what was meant.

A plain value that goes into the recording's metadata as ``structure``:

- ``siblings``: for each family of modules of one class, one parent, and the same operations, each module's path to the
  number of residual additions that it holds;
- ``additions``: of each stack in order, the module that holds it, and how it is written: ``x + f``, ``x - f``,
  ``f - x``, with ``s·`` before a term that a parameter multiplies, and ``0.5·`` before one that a number does;
- ``twice``: pairs of norms of which the second reads nothing but the first, and nobody else does;
- ``ends``: of each stack of which every branch begins with a norm: the last of these, what the stream comes to
  (``norm``, ``product`` or ``output``), and how many additions it has;
- ``streams``: of each stretch of a stream, its features (missing where its branches do not agree), whether they lie on
  the last axis, and for each norm on it the sizes that it normalizes.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from torch import nn

from gradlens.lens.additions import Addition
from gradlens.lens.architecture import Architecture, Call, common
from gradlens.lens.autograd_graph import Edge, Graph, Node, named, operation, shape
from gradlens.lens.constants import constant
from gradlens.lens.world import class_of

Facts: TypeAlias = dict[str, list[Any]]

#: What leaves each entry as it is, but for dropout and a constant.
_HANDED = named(
    "View UnsafeView ReshapeAlias Transpose T Permute Squeeze Unsqueeze Alias AsStrided Clone ToCopy Copy "
    "NativeDropout FusedDropout Mul Div"
)
_LINEAR, _CONVOLUTIONS = frozenset({"Addmm", "Mm"}), frozenset({"Convolution", "MkldnnConvolution"})
#: Normalizations that no module shows.
_NORMALIZES = re.compile(r"Norm|Rsqrt|Std|Var")


def structure(architecture: Architecture, model: nn.Module, calls: Iterable[Call]) -> Facts:
    """Return how the model is wired, as far as a pass shows it.

    Args:
        architecture: read off the pass.
        model: whose pass it was.
        calls: of its norms.
    """
    wiring = _Wiring(architecture, model, calls)
    return {
        "siblings": wiring.siblings(),
        "additions": wiring.additions(),
        "twice": wiring.twice(),
        "ends": wiring.ends(),
        "streams": wiring.streams(),
    }


class _Wiring:
    def __init__(self, architecture: Architecture, model: nn.Module, calls: Iterable[Call]) -> None:
        self._read, self._graph, self._model = architecture, architecture.graph, model
        self._norms = {node: site for site, node, _ in calls if node in self._graph.index}
        names = {id(p): name for name, p in reversed(list(model.named_parameters()))}
        #: Operations in order, each with the names of the parameters and the norm that it uses.
        self._used: dict[Node, list[str]] = {}
        for node in self._graph.index:
            used = [names[id(p)] for p in self._graph.parameters.get(node, ()) if id(p) in names]
            used += [f"{self._norms[node].partition('#')[0]}."] if node in self._norms else []
            if used:
                self._used[node] = sorted(used)
        self._uses = Counter(edge[0] for inputs in self._graph.inputs.values() for _, edge in inputs)
        self._held = {one.node: self._holder(one) for one in architecture.additions if not one.outer}

    # ------------------------------------------------------------------ modules

    def _holder(self, one: Addition) -> str:
        """Return the innermost module that holds all that the branches of an addition use."""
        inside = [
            node for node in one.inside if self._graph.source((node, 0)) == (node, 0)
        ]  # no positions added before
        return ".".join(common([name.split(".")[:-1] for node in inside for name in self._used.get(node, ())]))

    def siblings(self) -> list[dict[str, int]]:
        """Return the additions that equal modules hold; those whose input had no gradient are left out."""
        uses: dict[str, Counter[str]] = defaultdict(Counter)
        first: dict[str, Node] = {}
        last: dict[str, Node] = {}
        blind: set[str] = set()
        for node, used in self._used.items():
            unseen = not self._graph.inputs[node] or any(self._graph.is_partial(e) for _, e in self._graph.inputs[node])
            for name in used:
                for path in _above(name):
                    uses[path][name[len(path) + 1 :]] += 1
                    first.setdefault(path, node)
                    last[path] = node
                    blind |= {path} if unseen else set()
        held = Counter(path for holder in self._held.values() for path in _above(f"{holder}."))
        families: dict[Any, dict[str, int]] = defaultdict(dict)
        for path, counted in uses.items():
            module = _module(self._model, path)
            if path not in blind and module is not None and next(module.children(), None) is not None:
                keeps = _numel(self._graph.inputs[first[path]][0][1]) == _numel((last[path], 0))
                key = path.rpartition(".")[0], class_of(module), keeps, _shapes(module), frozenset(counted.items())
                families[key][path] = held[path]
        return [family for family in families.values() if len(family) > 1 and any(family.values())]

    # ------------------------------------------------------------------ additions

    def additions(self) -> list[list[list[str]]]:
        """Return how the additions of each stack are written."""
        return [[[self._held[one.node], self._written(one)] for one in stack] for stack in self._read.stacks()]

    def _written(self, one: Addition) -> str:
        """Return an addition as text; of a sum of several terms the skip's best, and the first branch's."""
        factors: dict[Edge, list[tuple[float, bool]]] = defaultdict(list)
        stack: list[tuple[Node, float, bool]] = [(one.node, 1.0, False)]
        while stack:
            node, factor, scaled = stack.pop()
            name, learned = operation(node), node in self._graph.parameters
            for position, edge in self._graph.inputs[node]:
                by_parameter = scaled or (learned and (name == "Lerp" or (name == "Addcmul" and position > 0)))
                source, own, by_parameter = self._traced(edge, factor * constant(node, position), by_parameter)
                if source[0] in one.sums and source[0] is not node:
                    stack.append((source[0], own, by_parameter))
                else:
                    factors[source].append((own, by_parameter))
        skip = max(factors.get(one.skip, ()), default=(1.0, False))  # a projected one has whatever sign it likes
        branch = next((factors[term][0] for term in one.branches if term in factors), (1.0, False))
        x, f = (_times(*of) + name for of, name in ((skip, "x"), (branch, "f")))
        if skip[0] > 0:
            return f"{x} + {f}" if branch[0] > 0 else f"{x} - {f}"
        return f"{f} - {x}" if branch[0] > 0 else f"-{x} - {f}"

    def _traced(self, edge: Edge, factor: float, scaled: bool) -> tuple[Edge, float, bool]:
        """Follow a term up to its source: return that, its constant factor, and whether a parameter multiplies it."""
        source = self._graph.source(edge)
        while edge != source and self._graph.inputs.get(edge[0]):
            node = edge[0]
            if len(self._graph.inputs[node]) > 1:  # a tensor times what it is mapped to: of no one sign
                return source, 1.0, scaled
            position, above = self._graph.inputs[node][0]
            own = constant(node, position)
            # What others read scaled, too, is the stream itself.
            factor *= own if self._uses[node] == 1 else math.copysign(1.0, own)
            scaled = scaled or (operation(node) in ("Mul", "Div") and node in self._graph.parameters)  # and no dropout
            edge = above
        return source, factor, scaled

    # ------------------------------------------------------------------ norms

    def twice(self) -> list[list[str]]:
        """Return the norms that read nothing but another norm, which nobody else reads."""
        found = []
        for node, site in self._norms.items():
            edge = next((edge for _, edge in self._graph.inputs[node]), (None, 0))
            while edge[0] not in self._norms and self._is_handed_on(edge[0]):
                edge = self._graph.inputs[edge[0]][0][1]
            if edge[0] in self._norms and len(self._graph.readers((edge[0], 0))) == 1:
                found.append([self._norms[edge[0]], site])
        return found

    def _is_handed_on(self, node: Node | None) -> bool:
        """Whether an operation hands on its one input."""
        inputs = self._graph.inputs.get(node, ())
        return len(inputs) == 1 and operation(node) in _HANDED and node not in self._graph.parameters

    def ends(self) -> list[list[Any]]:
        """Return what each stack comes to that has a norm first on each of its branches, and none on its stream."""
        inside = frozenset().union(*(one.inside for one in self._read.additions))
        found = []
        for stack in self._read.stacks():
            words = [{self._read.word(node): self._norms[node] for node in self._within(one)} for one in stack]
            pure = all("pre_branch" in placed and not placed.keys() & {"post_branch", "post_add"} for placed in words)
            if pure and stack[-1].node not in inside:
                found.append([words[-1]["pre_branch"], self._meets(stack[-1].node), len(stack)])
        return found

    def _within(self, one: Addition) -> list[Node]:
        """Return the norms on the branches of an addition."""
        return [node for node in self._norms if node in one.inside]

    def _meets(self, start: Node) -> str:
        """Return what a stream comes to behind an addition: a norm anywhere, else a product, and no convolution."""
        behind, met = {start}, set()
        for node, inputs in self._graph.inputs.items():
            if any(edge[0] in behind for _, edge in inputs):
                behind.add(node)
                name = operation(node)
                if node in self._norms or _NORMALIZES.search(name):
                    return "norm"
                met |= {name} if node in self._graph.parameters else set()
        return "product" if met & _LINEAR and not met & _CONVOLUTIONS else "output"

    def streams(self) -> list[dict[str, Any]]:
        """Return the features of each stretch of a stream between projected skips, and what its norms normalize."""
        found = []
        for stretch in _stretches(self._read.stacks(), self._graph):
            made = [self._features(one, term) for one in stretch for term in one.branches]
            on = {(one.node, 0) for one in stretch} | {one.skip for one in stretch if _is_direct(self._graph, one)}
            norms = {}
            for node, site in self._norms.items():
                edge = next((self._graph.source(edge) for _, edge in self._graph.inputs[node]), None)
                sizes = _sizes(self._model.get_submodule(site)) if edge in on and "#" not in site else []
                if sizes and self._read.word(node) in ("pre_branch", "post_add", "final"):
                    norms[site] = sizes
            agreed = made[0] if len(set(made)) == 1 else None
            if norms:
                found.append({"features": agreed and agreed[0], "last": bool(agreed and agreed[1]), "norms": norms})
        return found

    def _features(self, one: Addition, branch: Edge) -> tuple[int, bool] | None:
        """Return the features that the last product on a branch makes, and whether they lie on its last axis."""
        stack, met, found = [branch], set(), set()
        while stack:
            edge = stack.pop()
            name, sizes = operation(edge[0]), shape(edge)
            if edge[0] in self._graph.parameters and name in _LINEAR | _CONVOLUTIONS and len(sizes) > 1:
                found.add((sizes[-1], True) if name in _LINEAR else (sizes[1], False))
            elif edge[0] not in met:
                met.add(edge[0])
                stack += [above for _, above in self._graph.inputs[edge[0]]]
        features = found.pop() if len(found) == 1 else None
        # Attention without a product behind it makes its values of queries, keys and values together.
        return features if features is not None and features[0] in shape((one.node, 0)) else None


def _times(factor: float, by_parameter: bool) -> str:
    """Return a term's factor as text, without its sign."""
    size = f"{abs(factor):.3g}"
    return "s·" if by_parameter else "" if size == "1" else f"{size}·"


def _above(name: str) -> Iterator[str]:
    """Yield the paths of the modules that hold a parameter, outermost first, but the root."""
    parts = name.split(".")[:-1]
    yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))


def _stretches(stacks: Iterable[list[Addition]], graph: Graph) -> Iterator[list[Addition]]:
    """Yield the additions of each stack, cut where a skip is projected."""
    for stack in stacks:
        stretch: list[Addition] = []
        for one in stack:
            if stretch and not _is_direct(graph, one):
                yield stretch
                stretch = []
            stretch.append(one)
        yield stretch


def _module(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _shapes(module: nn.Module) -> frozenset[tuple[str, tuple[int, ...]]]:
    return frozenset((name, tuple(p.shape)) for name, p in module.named_parameters())


def _numel(edge: Edge) -> int:
    size = 1
    for entry in shape(edge):
        size *= entry
    return size


def _is_direct(graph: Graph, one: Addition) -> bool:
    """Whether the skip itself is a term of the sum, and no projection of it."""
    return any(graph.source(edge) == one.skip for part in one.sums for _, edge in graph.inputs[part])


def _sizes(module: nn.Module) -> list[int]:
    """Return the sizes that a norm's parameters are made for; none where it does not say."""
    shape = getattr(module, "normalized_shape", None)
    if shape is not None:
        return [int(size) for size in ((shape,) if isinstance(shape, int) else shape)]
    features = getattr(module, "num_features", None)
    return [features] if isinstance(features, int) else []
