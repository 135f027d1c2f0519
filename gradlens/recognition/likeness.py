"""Whether a module that no formula gives looks like a norm all the same, so that it is named rather than missed.

Told by what it does to a batch, never by its name: vectors come out in about the direction of x − μ and with lengths
that have lost what those of the input had; or each sample's are x̂ up to a scale and a shift of the sample's own.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from gradlens.recognition.behaviour import Sample, Seen, over
from gradlens.recognition.kinds import NormKind
from gradlens.recognition.samples import LEAST_VECTORS, Picks, tolerance

#: An input says something of a norm where its vectors' lengths differ so much, an output where it has this cosine; one
#: whose vectors are all of one length, where it has that one.
_SPREAD, _ALIGNED, _ALIKE = 0.02, 0.6, 0.3
#: Lengths that are lost differ by less than this much of what the input's did (few entries make theirs uncertain), of
#: few vectors by less than that much.
_LOST, _LOST_BY_FEW, _FEW = 0.25, 0.1, 8
#: A norm is a few operations.
_MOST_NODES = 200
#: Beginnings of the names of nodes that hand on all of a tensor in another shape, or layout, or as a copy.
_VIEWS = ("View", "UnsafeView", "ReshapeAlias", "Transpose", "Permute", "Unsqueeze", "Squeeze", "Clone", "ToCopy")


def likeness(module: nn.Module, seen: Seen, kinds: Sequence[NormKind], further: Sequence[Tensor] = ()) -> str:
    """Say over what an output looks normalized, whatever else was done to it; empty where over nothing.

    Args:
        module: what may be a norm.
        seen: one call of it.
        kinds: how vectors may lie.
        further: other tensors of the call.
    """
    for kind in kinds:
        for centered in (True, False):
            try:
                sample = Sample([seen], Picks(replace(kind, centered=centered), module, seen.x), [None])
            except (RuntimeError, ValueError, IndexError):
                continue
            y = sample.y - sample.y.mean(1, keepdim=True) if centered else sample.y
            if sample.y.shape[1] > 1 and _follows(sample.c[sample.finite], y[sample.finite]):
                return over(sample.kind)
    if _per_sample(seen):
        return "the last axis, with a scale and a shift for each sample"
    graphs = [one for one in further if one.dim() == 1 and not one.is_floating_point() and len(one) == len(seen.x)]
    return "the parts of a batch that another tensor tells" if any(_over_parts(seen, one) for one in graphs) else ""


def _follows(c: Tensor, y: Tensor) -> bool:
    """Whether y [vectors, H] has the direction of c, and not its lengths."""
    norm, length = torch.linalg.vector_norm(c, dim=1), torch.linalg.vector_norm(y, dim=1)
    ok = (norm > 0) & (length > 0)
    c, y, norm, length = c[ok], y[ok], norm[ok], length[ok]
    if len(norm) < LEAST_VECTORS or _spread(norm) < _SPREAD:
        return False
    along = (y * c).sum(1) / norm
    cosine = float((along / length).amin())
    lost = (_LOST if len(norm) >= _FEW else _LOST_BY_FEW) * _spread(norm)
    if cosine > _ALIGNED and (_spread(along) < lost or _spread(length) < lost):
        return True
    return cosine > _ALIKE and _spread(length) < 0.04 * lost


def is_affine(seen: Seen) -> bool:
    """Whether an output is an affine map of its input, feature by feature."""
    x, y = (one.double() for one in (seen.x, seen.y))
    features = [
        tuple(one.movedim(axis, -1).flatten(0, -2) for one in (x, y)) for axis in {x.dim() - 1, min(1, x.dim() - 1)}
    ]
    return any(_affine(*pair) <= 16 * tolerance(seen.x, seen.y) for pair in features)


def uses(x: Tensor, y: Tensor) -> int:
    """Return how often x, or a view of it, went into y, with their graphs: a statistic comes by a way of its own."""
    start, takers = get_gradient_edge(x), defaultdict[object, list[Node]](list)
    seen, left = {start.node}, [y.grad_fn]
    while left and len(seen) < _MOST_NODES:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for edge in node.next_functions:
            takers[edge].append(node)
            left.append(edge[0])
    found = takers[(start.node, start.output_nr)]
    while len(found) == 1 and found[0].name().startswith(_VIEWS):
        found = takers[(found[0], 0)]
    return len(found)


def _per_sample(seen: Seen) -> bool:
    """Whether y [B, T, C] is x̂ over the last axis times a scale plus a shift of each sample, and x is not so itself."""
    if seen.x.dim() != 3 or seen.x.shape[1] < LEAST_VECTORS:
        return False
    x, y = (one[0, :, :1024].double() for one in (seen.x, seen.y))
    if not bool(torch.isfinite(x).all() & torch.isfinite(y).all()):
        return False
    whole = seen.x[0].double()
    allowed = tolerance(seen.x, seen.y)
    for centre in (whole.mean(1, keepdim=True), torch.zeros_like(whole[:, :1])):
        x_hat = (x - centre) / (whole - centre).square().mean(1, keepdim=True).sqrt()
        if _affine(x_hat, y) <= 4 * allowed and _affine(x, y) > 16 * allowed:
            return True
    return False


def _affine(x: Tensor, y: Tensor) -> float:
    """Return how far y [T, C] is from a scale and a shift of x, each [C], relative to its deviations."""
    x, y = x - x.mean(0), y - y.mean(0)
    scale = (x * y).sum(0) / x.square().sum(0).clamp_min(1e-30)
    return float((y - scale * x).norm() / y.norm().clamp_min(1e-30))


def _over_parts(seen: Seen, part: Tensor) -> bool:
    """Whether the rows of each part of a batch look normalized, together or feature by feature."""
    x, y = seen.x.double(), seen.y.double()
    rows = [part == one for one in torch.unique(part)[:32]]
    for dims in ((0,), tuple(range(x.dim()))):
        pairs = []
        for own in rows:
            a, b = (one[own] - one[own].mean(dims, keepdim=True) for one in (x, y))
            size = a.shape[0] ** 0.5
            pairs.append(tuple((one.movedim(0, -1) if len(dims) == 1 else one.reshape(1, -1)) / size for one in (a, b)))
        lengths = [_lengths(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])) for a, b in pairs]
        norm, length, along = (torch.cat(one) for one in zip(*lengths, strict=True))
        ok = (norm > 0) & (length > 0)
        norm, length, along = norm[ok], length[ok], along[ok]
        told = len(norm) >= LEAST_VECTORS and _spread(norm) > _SPREAD
        if told and bool((along > _ALIGNED * length).all()) and _spread(length) < 0.5 * _spread(norm):
            return True
    return False


def _lengths(c: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    norm = torch.linalg.vector_norm(c, dim=1)
    return norm, torch.linalg.vector_norm(y, dim=1), (c * y).sum(1) / norm.clamp_min(1e-30)


def _spread(values: Tensor) -> float:
    """Return the standard deviation of the logarithms: 0 where all are equal."""
    return float(values.abs().log().std())
