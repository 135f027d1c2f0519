"""Where norms stand and what the blocks are, read off the autograd graph of one pass, whatever the family.

What the skips of all residual additions (``additions``) lead through is the stream. A norm's placement follows from who
else reads what it reads, and who reads what it returns.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from torch import nn

from gradlens.lens.additions import Addition, additions
from gradlens.lens.autograd_graph import Edge, Graph, Node, operation, shape
from gradlens.lens.world import class_of

#: A call of a norm: its site, the node behind its output, and that behind the alias that it was handed (None where
#: its input had no gradient).
Call: TypeAlias = tuple[str, Node, Node | None]

_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
_PRODUCTS = frozenset({"Bmm", "Baddbmm"})
#: What happens to scores before a softmax is taken of them, where it is not looked through.
_MASKED = frozenset({"Add", "Tanh", "Maximum", "Where"})
#: What makes weights of scores in place of a softmax.
_BENT = frozenset({"Sigmoid", "LogSigmoid", "Relu", "Softplus", "Elu", "Gelu", "Silu", "Exp", "Pow", "Mul"})
#: What queries and keys pass on their way to their product, rotations of positions among it.
_TURNS = frozenset({"Mul", "Add", "Sub", "Neg", "Cat", "Stack", "Slice", "Select", "Index", "Split", "Unbind"})


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
        self._at = {one.node: one for one in self.additions if not one.outer}
        self._inside = frozenset().union(*(one.inside for one in self.additions))
        #: The branches that a sum adds, also by its parts.
        self._added: dict[Node, set[Edge]] = {}
        for one in self.additions:
            for part in one.sums:
                self._added.setdefault(part, set()).update(one.branches)
        #: What becomes the stream, be it pooled or bent on the way.
        self._begins = {graph.loose_source(one.skip) for one in self.additions} | {one.skip for one in self.additions}
        self._stream = self._find_stream()
        self._behind = self._find_behind()
        self._words: dict[Node, str] = {}

    def placements(self, calls: Iterable[Call]) -> dict[str, str]:
        """Return where norms stand, by site: of several calls the most frequent; one that has no word is left out."""
        words: dict[str, Counter[str]] = {}
        for site, node, alias in calls:
            if alias is not None and node in self.graph.index and (word := self.word(node)):
                words.setdefault(site, Counter())[word] += 1
        return {site: counted.most_common(1)[0][0] for site, counted in words.items()}

    def blind(self, calls: Iterable[Call]) -> set[str]:
        """Return the sites of norms whose input, or something that was added to it, had no gradient."""
        inputs = self.graph.inputs
        return {
            site
            for site, node, alias in calls
            if alias is None or any(self.graph.is_partial(edge) for _, edge in inputs.get(node, ()))
        }

    def blocks(self, model: nn.Module, calls: Iterable[Call]) -> list[list[str]]:
        """Return the blocks of each stack, by module path: equal modules that hold what successive branches use.

        Args:
            model: whose pass it was.
            calls: of its norms.
        """
        homes = {id(p): path.split(".")[:-1] for path, p in reversed(list(model.named_parameters()))}
        norms = {node: site.partition("#")[0].split(".") for site, node, _ in calls}
        found = []
        for stack in self.stacks():
            paths = []
            for one in stack:
                used = [homes.get(id(p)) for node in one.inside for p in self.graph.parameters.get(node, ())]
                used += [norms[node] for node in one.inside if node in norms]
                paths.append(common([path for path in used if path is not None]))
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

    def stacks(self) -> list[list[Addition]]:
        """Return the additions of each stack in order: nothing but norms, activations and pooling lies between."""
        stacks: list[list[Addition]] = []
        last: dict[Node, list[Addition]] = {}
        for one in self._at.values():
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

    def word(self, norm: Node) -> str:
        """Return the placement of a call; empty where it has none of these."""
        # Kept: what a norm is may depend on the norm before it, and that on the one before.
        if norm not in self._words:
            self._words[norm] = self._word(norm)
        return self._words[norm]

    def _word(self, norm: Node) -> str:
        graph, inside = self.graph, norm in self._inside
        if not graph.inputs[norm]:
            return ""
        taken = graph.inputs[norm][0][1]
        source, readers = graph.source(taken), graph.readers((norm, 0))
        if any(norm in one.inside and source in one.begins for one in self.additions):
            return "pre_branch"
        summed = bool(readers) and all((norm, 0) in self._added.get(reader, ()) for reader, _ in readers)
        if summed:  # an average of the last layers is no branch
            return self._after_the_last(source[0]) if source[0] in self._at else "post_branch"
        if self._meets_keys(norm):
            return "qk"
        if norm in self._stream and (norm, 0) in self._begins:
            if source[0] in self._at:
                return "post_add"
            if norm not in self._behind and not graph.is_partial(taken):
                return "embed"
        if not inside and norm not in self._stream:
            before = graph.loose_source(taken)[0]
            if before in self._at and sum(reader in graph.calls for reader, _ in graph.readers(source)) == 1:
                return self._after_the_last(before)
            if before in graph.calls and self.word(before) == "post_add":
                return "final"
        return "in_branch" if inside else ""

    def _after_the_last(self, node: Node) -> str:
        """Tell a norm after a stack's last addition: the stack's own, or the last block's where each ends with one."""
        norms, sums = self.graph.calls.keys(), [one for one in self.additions if one.node == node]
        skips = {one.skip[0] for one in sums}
        if any(self.word(skip) == "post_add" for skip in skips & norms):
            return "post_add"
        inside = frozenset().union(*(one.inside for one in sums)) & norms
        at_ends = any(self.word(norm) in ("pre_branch", "post_branch") for norm in inside)
        return "final" if at_ends or skips & self._at.keys() else "post_add"

    def _meets_keys(self, norm: Node) -> bool:
        """Whether a norm's output is multiplied, as queries or keys, by keys or queries."""
        readers, met = list(self.graph.readers((norm, 0))), set()
        for node, place in readers:  # which grows meanwhile
            name = operation(node)
            if _ATTENTION.search(name):
                if place < 2:
                    return True
            elif name in _PRODUCTS and len(self.graph.inputs[node]) == 2:
                if self._is_score(node, shape((norm, 0))[-1:]):
                    return True
            elif name in _TURNS and node not in self._at and node not in met:
                met.add(node)
                readers += [reader for edge in self.graph.outputs(node) for reader in self.graph.readers(edge)]
        return False

    def _is_score(self, node: Node, features: tuple[int, ...]) -> bool:
        """Whether a product is of queries and keys: a softmax is taken of it, or values are weighed with it.

        Without a softmax it must be over the features, which its own axes are not; a mask or a bias may be added.

        Args:
            node: the product.
            features: what was normalized.
        """
        products, over = [node], not set(features) & set(shape((node, 0))[-2:])
        met = {node}
        for one in products:  # which grows meanwhile
            for reader, place in self.graph.readers((one, 0)):
                name = operation(reader)
                if "Softmax" in name:
                    return True
                if over and place == 0 and name in _PRODUCTS and len(self.graph.inputs[reader]) == 2:
                    return True
                if reader not in met and (name in _MASKED or (over and name in _BENT)):
                    met.add(reader)
                    products.append(reader)
        return False


def common(paths: Sequence[Sequence[str]]) -> list[str]:
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
    found = [model.get_submodule(path) for path in modules]
    alike = len({class_of(module) for module in found}) == 1
    composed = all(next(module.children(), None) is not None for module in found)
    return modules if alike and composed and len(modules) == changes + 1 > 1 else []
