"""The largest gain of one block: the largest singular value of its Jacobian at a real batch."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradlens.batches import blaming
from gradlens.errors import ModelError
from gradlens.outputs import first_tensor
from gradlens.probes.calls import first_calls, stacked
from gradlens.probes.eigenvalue import Array, largest_eigenvalue
from gradlens.probes.generators import seeded
from gradlens.probes.reading import Reading


def block_jacobian(model: nn.Module, batch: Any, site: str, *, tolerance: float = 1e-3, seed: int = 0) -> Reading:
    """Measure how much a module stretches a small change of its input at most: σ_max of d output / d input.

    Args:
        model: never changed.
        batch: what its forward takes.
        site: path of the module; its first floating argument is the input.
        tolerance: of the square, relative.
        seed: of dropout and of the vector Lanczos iteration starts from.

    Returns:
        The singular value, in output/input; its interval is the residual's.

    Raises:
        ModelError: the module does not run, takes no tensor, or cannot be differentiated twice.
        GradlensError: no convergence.
    """
    call = first_calls(model, batch, [site], seed=seed)[0]
    passes = 0
    with blaming(call.module, call.arguments), torch.enable_grad():
        x, y = _once_more(call.module, call.arguments, dict(call.keywords), seed)
        probe = torch.zeros_like(y, requires_grad=True)
        # The derivative of Jᵀu by u, times v, is Jv: two backward passes in place of forward-mode differentiation,
        # which fewer operations have.
        (pulled,) = torch.autograd.grad(y, x, probe, create_graph=True, materialize_grads=True)

    def product(vector: Array) -> Array:
        nonlocal passes
        passes += 2
        given = torch.from_numpy(vector).to(x).view_as(x)
        (pushed,) = torch.autograd.grad(pulled, probe, given, retain_graph=True)
        (back,) = torch.autograd.grad(y, x, pushed, retain_graph=True)
        image: Array = back.double().reshape(-1).cpu().numpy()
        return image

    try:
        pair = largest_eigenvalue(product, x.numel(), tolerance=tolerance, seed=seed)
    except (RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"A Jacobian's singular value needs operations that can be differentiated twice; one of {site!r} cannot "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). Replace it by plain torch operations."
        ) from error
    ends = [float(np.sqrt(max(pair.value + sign * pair.residual, 0.0))) for sign in (-1, 1)]
    return Reading(
        probe="block_jacobian",
        name="largest singular value",
        value=float(np.sqrt(max(pair.value, 0.0))),
        low=ends[0],
        high=ends[1],
        unit="output/input",
        site=site,
        forward=2,
        backward=1 + passes,
        misleads="It is the worst direction at this batch; a typical one is stretched far less.",
    )


def readings(model: nn.Module, batch: Any, loss_fn: Any, seed: int) -> list[Reading]:
    """Return the gains of the first and the last block; the probe of ``PROBES``."""
    blocks = stacked(model)
    return [block_jacobian(model, batch, site, seed=seed) for site in (blocks[0], blocks[-1])]


def _once_more(
    module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], seed: int
) -> tuple[Tensor, Tensor]:
    """Call a module again with an input that takes a gradient; returns that input and the output."""
    x = first_tensor(arguments) if first_tensor(arguments) is not None else first_tensor(keywords)
    if x is None:
        raise ModelError(f"A Jacobian needs a module that takes a floating tensor; {type(module).__name__} takes none.")
    leaf = x.detach().clone().requires_grad_()
    swap = lambda value: leaf if value is x else value  # noqa: E731
    args, kwargs = torch.utils._pytree.tree_map(swap, (arguments, keywords))
    state = {name: buffer.clone() for name, buffer in module.named_buffers()}
    state |= {name: parameter.detach() for name, parameter in module.named_parameters()}
    with seeded(seed, [leaf]), sdpa_kernel(SDPBackend.MATH):
        y = first_tensor(torch.func.functional_call(module, state, args, kwargs))
    if y is None or not y.requires_grad:
        raise ModelError(
            f"A Jacobian needs an output that depends on the input; that of {type(module).__name__} does not."
        )
    return leaf, y
