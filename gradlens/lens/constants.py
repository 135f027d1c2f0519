"""The numbers that a term of a sum is multiplied by, as far as its operations have kept them."""

from torch import Tensor

from gradlens.lens.autograd_graph import Node, operation


def constant(node: Node, position: int) -> float:
    """Return the number that an operation multiplies one of its inputs by; 1 where there is none, or it is not known.

    Args:
        node: the operation.
        position: of the input among its arguments.
    """
    name, other = operation(node), "self" if position else "other"
    if name == "Neg" or (name == "Rsub" and not position):
        return -1.0
    if name == "Mul":
        return _number(node, other) or 1.0
    if name == "Div":
        return 1.0 / (_number(node, other) or 1.0) if not position else 1.0
    if name in ("Add", "Sub") and position == 1:
        return (_number(node, "alpha") or 1.0) * (-1.0 if name == "Sub" else 1.0)
    if name == "Lerp":
        end = _number(node, "weight")
        return 1.0 if end is None else end if position else 1.0 - end
    if name == "Addcmul" and position:
        return (_number(node, "value") or 1.0) * (_number(node, "tensor2" if position == 1 else "tensor1") or 1.0)
    return 1.0


def _number(node: Node, argument: str) -> float | None:
    """Return a number that an operation has kept, without a wait for a device, or for hooks that would unpack it."""
    kept = getattr(node, f"_raw_saved_{argument}", None)
    if kept is None:
        kept = getattr(node, f"_saved_{argument}", None)
        return float(kept) if isinstance(kept, int | float) else None
    # Earlier versions of PyTorch do not say whether looking would trigger hooks.
    value = kept.data if getattr(kept, "unpack_hook", kept) is None else None
    plain = type(value) is Tensor and value.numel() == 1 and value.device.type == "cpu" and not value.requires_grad
    return float(value) if value is not None and plain else None
