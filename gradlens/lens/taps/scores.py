"""What a tensor is to attention: scores that softmax is taken of, how many heads it holds, whether it can be read."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.lens.world import placements

#: What modules call the number of their heads, which a dimension of sequences may hold.
_HEADS = ("num_heads", "n_heads", "n_head", "nhead", "heads", "num_attention_heads")
#: Autograd's names of what may stand between the product of queries and keys and softmax, and in front of the product.
_MOVES = {"View", "UnsafeView", "ReshapeAlias", "Transpose", "Permute", "T", "Expand", "Unsqueeze", "Squeeze", "Clone",
          "ToCopy", "Slice", "Alias", "Contiguous"}  # fmt: skip
_BETWEEN = _MOVES | {"Add", "Sub", "Mul", "Div", "MaskedFill", "Where", "Tanh", "Clamp", "Cat", "Select", "Copy",
                     "CopySlices", "NativeDropout", "Softcap"}  # fmt: skip
_PRODUCTS = {"Bmm", "Baddbmm", "Mm"}
_STEPS = 24


def are_scores(x: Any, dim: Any) -> bool:
    """Whether softmax of it is attention: over the last dimension of a product of two tensors, neither a parameter."""
    if not isinstance(x, Tensor) or x.dim() < 2 or dim not in (-1, x.dim() - 1) or x.shape[-1] < 2:
        return False
    if x.grad_fn is None:
        return x.dim() == 4  # a checkpoint's first pass, or nothing before it is trained
    nodes, left = [x.grad_fn], _STEPS
    while nodes and left:
        node, left = nodes.pop(0), left - 1
        kind = _kind(node)
        if kind in _PRODUCTS:
            return not any(_is_parameter(operand) for operand, _ in node.next_functions[-2:])
        if kind in _BETWEEN:
            nodes += [before for before, _ in node.next_functions if before is not None]
    return False


def _is_parameter(node: Any) -> bool:
    """Whether a factor is a parameter, as it is or moved: then the product is a linear layer's."""
    while node is not None and _kind(node) in _MOVES:
        node = node.next_functions[0][0]
    return node is not None and _kind(node) == "torch::autograd::AccumulateGrad"


def _kind(node: Any) -> str:
    return re.sub(r"Backward\d*$", "", node.name())


def heads_of(owner: nn.Module, x: Tensor) -> int:
    """Return how many heads lie in the first of three dimensions."""
    for name in _HEADS if x.dim() == 3 else ():
        heads = getattr(owner, name, None)
        if isinstance(heads, int) and heads > 0 and x.shape[0] % heads == 0:
            return heads
    return 1


def unreadable(tensors: list[Any]) -> str:
    """Return why tensors cannot be read; empty where they can."""
    if any(placements(x) for x in tensors):
        return "attention over a DTensor"
    plain = all(type(x) in (Tensor, nn.Parameter) and x.layout == torch.strided and not x.is_nested for x in tensors)
    return "" if plain and all(x.numel() for x in tensors) else "attention over tensors that are not dense, or empty"
