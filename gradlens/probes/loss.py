"""The loss as a deterministic function of the trainable parameters, with its gradient and its Hessian.

Nothing of the user's model is changed: the parameters are swapped for others during a call and the buffers for
copies (``torch.func.functional_call``), and the states of the random number generators are put back.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradlens.batches import blaming, run_model
from gradlens.errors import ModelError
from gradlens.outputs import OWN_LOSS, PROJECTION, loss_of, trainable
from gradlens.probes.generators import seeded, states
from gradlens.probes.second_derivative import cut_off, no_second_derivative

#: Two evaluations may differ by this much (relative) before the loss is no function of the parameters.
SAME = 1e-3
#: Step of a difference of two gradients, relative to the norm of all weights; and what of it may be rounding.
STEP, ROUNDING = 1e-4, 1e-6


class Loss:
    """The loss on one batch, in the mode (train or eval) that the model is in.

    Args:
        model: evaluated with other weights in place of its own; never changed.
        batch: what its forward takes, on the model's device.
        loss_fn: (output, batch) to a scalar; without it see ``gradlens.outputs.loss_of``.
        seed: of every evaluation, so that dropout is the same in all of them.
        double: evaluate a copy of the model in float64.

    Attributes:
        parameters: those that take a gradient, as they are now: they follow the model unless ``double``.
        names: of the parameters.
        origin: where the loss comes from, in words.
        notes: what was done to the model or left out.
        forward: forward passes so far.
        backward: backward passes so far.

    Raises:
        ModelError: no parameter takes a gradient, the model does not run, or its loss is not finite or not the same
            twice.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Any,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        *,
        seed: int = 0,
        double: bool = False,
    ) -> None:
        eager = getattr(model, "_orig_mod", model)
        compiled = eager is not model
        self.forward, self.backward, self.origin = 0, 0, ""
        self._seed = seed
        self._first_order: tuple[list[Tensor], tuple[Tensor, ...]] | None = None
        if double:
            eager, batch = copy.deepcopy(eager).double(), in_double(batch)
        self._batch, self._evaluated = batch, _Evaluated(eager, loss_fn)
        trainable(eager)
        moving = {name: p for name, p in self._evaluated.named_parameters() if p.requires_grad}
        frozen = sum(1 for p in eager.parameters() if not p.requires_grad)
        if any(p.is_complex() for p in moving.values()):
            raise ModelError("A probe of the loss needs real parameters; got complex ones. Freeze them.")
        self.names = [name.removeprefix("model.") for name in moving]
        self._keys, self.parameters = list(moving), [p.detach() for p in moving.values()]
        notes = ["evaluated on a copy in float64"] if double else []
        notes += ["evaluated without torch.compile"] if compiled else []
        notes += [f"{frozen} frozen parameters are left out"] if frozen else []
        notes += [] if model.training else ["the model is in eval mode: dropout is off, running statistics are used"]
        self._draws = False
        first = self._checked(self.value())
        apart = abs(self.value() - first) / max(abs(first), 1e-12)
        if apart > SAME:
            raise ModelError(
                f"A probe needs a loss that is the same twice; that of {type(eager).__name__} differs by {apart:.2g} "
                "(relative) on one batch with one seed. Draw its random numbers from torch, random or numpy, or "
                "turn them off."
            )
        notes += [f"the loss is {self.origin}"] if self.origin in (OWN_LOSS, PROJECTION) else []
        notes += [f"two evaluations differ by {apart:.2g} (relative)"] if apart else []
        notes += [f"the model draws random numbers (dropout): the same in every evaluation, seed {seed}"] * self._draws
        self.notes = tuple(notes)

    @property
    def size(self) -> int:
        """The number of trainable weights."""
        return sum(p.numel() for p in self.parameters)

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return one tensor per parameter as one vector [size]."""
        return torch.cat([tensor.reshape(-1) for tensor in tensors])

    def split(self, vector: Tensor) -> list[Tensor]:
        """Return a vector [size] as one tensor per parameter, in the parameters' dtypes and on their devices."""
        parts = torch.split(vector, [p.numel() for p in self.parameters])
        return [part.view_as(p).to(p) for part, p in zip(parts, self.parameters, strict=True)]

    def value(self, parameters: Sequence[Tensor] | None = None) -> float:
        """Return the loss at these parameters; at the model's own where there are none."""
        with torch.no_grad():
            return float(self._evaluate(self.parameters if parameters is None else parameters))

    def gradient(self, parameters: Sequence[Tensor] | None = None) -> Tensor:
        """Return the gradient [size] at these parameters; zero where one has no part in the loss."""
        leaves = [p.clone().requires_grad_() for p in (self.parameters if parameters is None else parameters)]
        with blaming(self._evaluated.model, self._batch), torch.enable_grad():
            gradients = torch.autograd.grad(self._evaluate(leaves), leaves, materialize_grads=True)
        self.backward += 1
        return self.flat([gradient.detach() for gradient in gradients])

    def hessian_vector(self, vector: Tensor) -> Tensor:
        """Return the Hessian's product [size] with a vector [size]; the first call keeps the graph for all others.

        Raises:
            ModelError: an operation of the model has no second derivative; it is named.
        """
        try:
            leaves, gradients = self._graph()
            given = [(g, v) for g, v in zip(gradients, self.split(vector), strict=True) if g.requires_grad]
            if not given:  # the loss is linear in every parameter
                return torch.zeros_like(self.flat(self.parameters))
            products = torch.autograd.grad(
                [g for g, _ in given], leaves, [v for _, v in given], retain_graph=True, materialize_grads=True
            )
        except (RuntimeError, NotImplementedError) as error:
            raise ModelError(
                no_second_derivative(self._evaluated.model, self._loss, str(error) or repr(error))
            ) from error
        self.backward += 2
        return self.flat(products)

    def curvature_by_difference(self, direction: Tensor) -> float:
        """Return d·H d for a direction d [size] from two gradients, a step of 1e-4 of the weights' norm apart.

        It is that of training itself; zero where the gradients differ by no more than rounding. The Hessian that
        autograd gives is another one where the model detaches something, or where an operation brings its own
        backward without a second derivative. For ReLU and the like it also sees kinks, which no Hessian does.
        """
        at = self.flat(self.parameters)
        d = direction.to(at)
        step = STEP * float(at.norm()) / float(d.norm())
        up, down = (self.gradient(self.split(at + sign * step * d)).double() for sign in (1, -1))
        change = float(d.double() @ (up - down))
        return change / (2 * step) if abs(change) > ROUNDING * float((up + down).norm() * d.norm()) else 0.0

    def _graph(self) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        if self._first_order is None:
            leaves = [p.clone().requires_grad_() for p in self.parameters]
            with torch.enable_grad():
                self._loss = self._evaluate(leaves)
                gradients = torch.autograd.grad(self._loss, leaves, create_graph=True, materialize_grads=True)
            self.backward += 1
            if cut_off(gradients):
                raise RuntimeError("it is marked once_differentiable")
            self._first_order = leaves, gradients
        return self._first_order

    def _evaluate(self, parameters: Sequence[Tensor]) -> Tensor:
        """Run the model forward once, with the same random numbers each time and fresh copies of its buffers."""
        self.forward += 1
        state = dict(zip(self._keys, parameters, strict=True))
        state |= {name: buffer.clone() for name, buffer in self._evaluated.named_buffers()}
        model, random = self._evaluated.model, seeded(self._seed, self.parameters)
        # The fused kernels of attention have no second derivative; the plain one has.
        with blaming(model, self._batch), random, sdpa_kernel(SDPBackend.MATH):
            before = states(self.parameters)
            loss: Tensor
            loss, self.origin = torch.func.functional_call(self._evaluated, state, (self._batch,))
            self._draws = any(not torch.equal(a, b) for a, b in zip(before, states(self.parameters), strict=True))
        return loss.reshape(())

    def _checked(self, value: float) -> float:
        if math.isfinite(value):
            return value
        raise ModelError(
            f"A probe needs a finite loss to start from; that of {type(self._evaluated.model).__name__} is {value}. "
            "Look at its initialization and at the batch: a language model needs sequences of two tokens or more."
        )


class _Evaluated(nn.Module):
    """Model and loss in one module, so that a loss that looks at the model's weights sees those given."""

    def __init__(self, model: nn.Module, loss_fn: Callable[[Any, Any], Tensor] | None) -> None:
        super().__init__()
        self.training = model.training
        self.model = model
        self.loss_fn = loss_fn

    def forward(self, batch: Any) -> tuple[Tensor, str]:
        """Return the loss and where it comes from."""
        return loss_of(run_model(self.model, batch), batch, self.loss_fn)


def in_double(batch: Any) -> Any:
    """Return the batch with every floating tensor in it in float64."""
    return torch.utils._pytree.tree_map(
        lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, batch
    )
