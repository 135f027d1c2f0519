"""An output is what a model's ``forward`` returns: the tensors in it, its loss, and what that is a function of."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.errors import GradlensError, ModelError, one_line

#: How the loss was made where the user gave none.
OWN_LOSS = "the output's own .loss"
PROJECTION = "the output's product with a fixed random direction"


def tensors_of(value: Any) -> list[Tensor]:
    """Return the floating tensors in a tensor, tuple, list, mapping or dataclass, however deep; else none."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        value = tuple(value.values())
    elif hasattr(value, "__dataclass_fields__"):
        value = tuple([getattr(value, name) for name in value.__dataclass_fields__])
    if isinstance(value, tuple | list):
        return [tensor for part in value for tensor in tensors_of(part)]
    return []


def first_tensor(value: Any) -> Tensor | None:
    """Return the first floating tensor in a tensor, tuple, list, mapping or dataclass; None where there is none."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    found = tensors_of(value)
    return found[0] if found else None


def loss_of(output: Any, batch: Any, loss_fn: Callable[[Any, Any], Tensor] | None) -> tuple[Tensor, str]:
    """Return the loss of an output, and in words where it comes from.

    Without ``loss_fn`` it is the output's own ``.loss``, else the product with a fixed random direction of unit
    length (its gradient then has norm one at the output).

    Raises:
        ModelError: ``loss_fn`` raises; the output holds no floating tensor; or the loss is not one number, or, where
            gradients are taken, has none.
    """
    if loss_fn is not None:
        name = getattr(loss_fn, "__qualname__", type(loss_fn).__name__)
        return _differentiable(_called(loss_fn, name, output, batch)), name
    own = getattr(output, "loss", None)
    if isinstance(own, Tensor):
        return _differentiable(own), OWN_LOSS
    y = first_tensor(output)
    if y is None:
        raise ModelError(
            f"The model must return a tensor (or something that holds one, or .loss); got {type(output).__name__}. "
            "Return (module, batch, loss_fn) from build, with loss_fn(output, batch)."
        )
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
    return _differentiable((y * (direction / direction.norm())).sum()), PROJECTION


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that take a gradient, by name.

    Raises:
        ModelError: there is none.
    """
    parameters = dict(model.named_parameters())
    found = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    if not found:
        got = f"all {len(parameters)} of {type(model).__name__} are frozen" if parameters else "the model has none"
        raise ModelError(
            f"A loss' gradient needs parameters that take one; {got}. Set requires_grad on those that are trained."
        )
    return found


def _called(loss_fn: Callable[[Any, Any], Tensor], name: str, output: Any, batch: Any) -> Any:
    """Call the user's loss: what it raises is not the model's fault."""
    try:
        return loss_fn(output, batch)
    except GradlensError:
        raise
    except Exception as error:
        raise ModelError(
            "A loss is called as loss_fn(output, batch), with what the model returned and what its forward took, and "
            f"returns one number; {name} raised {one_line(error)}. Its output was a {type(output).__name__}, its batch "
            f"a {type(batch).__name__}."
        ) from error


def _differentiable(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ModelError(f"The loss must be one number; got {got}. Return the mean, as a tensor.")
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise ModelError(
            "The loss must depend on the parameters; it has no gradient. Look for no_grad, detach or item in the model "
            "and the loss."
        )
    return loss
