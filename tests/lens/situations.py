"""The situations people train in, one row each of the matrix that ``test_matrix`` runs.

A situation is a model, one training step in two halves (``backward`` fills the gradients, ``update`` uses them), and
how exactly the recording must agree with the witness, who watches ``plain``: the same mathematics without the twist.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import gradlens
from tests.lens import networks, passes, twists
from tests.lens.networks import encoder, stack
from tests.lens.passes import Optimizer, backward, update, vectors
from tests.lens.twists import images, resnet

gradlens.register_norm(networks.NormWithExtras, axes=-1)


@dataclass(frozen=True)
class Situation:
    """One row of the matrix.

    Attributes:
        name: what is special about it.
        build: makes the model, the same every time.
        plain: makes the model that the witness watches; without it the witness watches what ``build`` makes.
        batch: the step's batch.
        backward: model and batch to the loss, gradients filled.
        update: model and optimizer to changed weights.
        optimizer: parameters to their optimizer.
        zero_grad: how gradients are cleared before each step.
        options: passed to attach.
        site: from a recorded site to the module that the witness watched in its stead.
        share: absolute tolerance of shares.
        relative: relative tolerance of everything else.
        drift: how far weights may move from those of a run without the lens; 0 is bit for bit.
        says: what the audit may say, and nothing else.
    """

    name: str
    build: Callable[[], nn.Module] = stack
    plain: Callable[[], nn.Module] | None = None
    batch: Callable[[int], Any] = vectors
    backward: Callable[[nn.Module, Any], Tensor] = backward
    update: Callable[[nn.Module, Optimizer], None] = update
    optimizer: Callable[..., Optimizer] = passes.sgd
    zero_grad: Callable[[Optimizer], None] = Optimizer.zero_grad
    options: dict[str, Any] = field(default_factory=dict)
    site: Callable[[str], str] = str
    share: float = 1e-4
    relative: float = 1e-3
    drift: float = 0.0
    says: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def train(self, model: nn.Module, steps: int, after_backward=None, after_step=None) -> list[float]:
        """Train, calling ``after_backward(step)`` and ``after_step(step)``; return the losses."""
        torch.manual_seed(1)  # for dropout
        optimizer = self.optimizer(model.parameters())
        losses = []
        for step in range(steps):
            self.zero_grad(optimizer)
            losses.append(float(self.backward(model, self.batch(step)).detach()))
            if after_backward is not None:
                after_backward(step)
            self.update(model, optimizer)
            if after_step is not None:
                after_step(step)
        return losses


def frozen_below() -> nn.Module:
    """The first layers are frozen: their norms see no gradient, the first norm above needs none at its input."""
    model = stack()
    for part in (model[0], model[1][0]):
        part.requires_grad_(False)
    return model


def checkpointed(reentrant: bool):
    return partial(stack, partial(twists.Checkpointed, reentrant))


def nested(outer: bool, inner: bool):
    return partial(stack, partial(twists.NestedCheckpoint, outer, inner), 2)


def of_dtype(dtype: torch.dtype):
    return lambda: stack().to(dtype)


nested_plain = partial(stack, twists.NestedPlain, 2)
#: The modules that only hold the functions' parameters never run; the audit may say so.
FUNCTIONAL = {"options": {"functional": True}, "says": ("norms never ran as modules",)}
#: As in ``test_precision``.
FLOAT16, BFLOAT16 = {"share": 3e-4, "relative": 1e-3}, {"share": 3e-3, "relative": 1e-2}


def block(cls: type[nn.Module]) -> partial:
    return partial(stack, cls)


def called_norm(site: str) -> str:
    """From a function's site to the module that holds its parameters."""
    return site.replace("#layer_norm", ".norm")


def images_norm(site: str) -> str:
    return site.removeprefix("#").removesuffix("_norm")


SITUATIONS = (
    Situation("plain"),
    Situation("an input that needs a gradient", backward=passes.needing_gradient),
    # in-place operations
    Situation("in place after the norm", block(twists.InPlaceAfter), block(twists.PlainAfter)),
    Situation("in place on views of the output", block(twists.InPlaceOnViews), block(twists.PlainOnViews)),
    Situation("in place before the norm", block(twists.InPlaceBefore), block(twists.PlainBefore)),
    Situation("in place on the input after the norm", block(twists.InPlaceOnInput), block(twists.PlainOnInput)),
    Situation("ResNet with in-place ReLU", resnet, partial(resnet, False), batch=passes.pictures),
    Situation(
        "ResNet in channels_last", lambda: resnet().to(memory_format=torch.channels_last), partial(resnet, False),
        batch=lambda step: passes.pictures(step).to(memory_format=torch.channels_last),
    ),
    # calls and signatures
    Situation("keyword input", block(networks.Keyword), block(networks.Block)),
    Situation("a norm called three times", block(networks.Thrice)),
    Situation("a norm shared by two parents", networks.shared),
    Situation("a norm that returns a tuple", block(networks.Extras)),
    Situation("a transposed input", block(networks.Transposed)),
    Situation("a single vector", batch=lambda step: vectors(step)[0, 0]),
    Situation("frozen layers below", frozen_below, says=("No gradient reached the output of 1.0.norm",)),
    *(
        Situation(f"a model that returns {name}", partial(networks.Returning, wrap), backward=passes.own_loss)
        for name, wrap in networks.OUTPUTS.items()
    ),
    # torch's own stacks
    *(
        Situation(f"TransformerEncoder, norm_first={first}, dropout={dropout}", partial(encoder, first, dropout))
        for first in (True, False)
        for dropout in (0.0, 0.1)
    ),
    Situation("TransformerEncoder in eval mode", lambda: encoder(True).eval()),
    Situation("nn.Transformer", networks.seq2seq),
    Situation("nn.MultiheadAttention", block(networks.Attention)),
    Situation("recurrent networks", networks.recurrent),
    # checkpoints
    *(
        Situation(f"checkpoint, use_reentrant={mode}", checkpointed(mode), stack, backward=passes.needing_gradient)
        for mode in (True, False)
    ),
    *(
        Situation(
            f"a norm called three times in a checkpoint, use_reentrant={mode}",
            partial(stack, partial(twists.CheckpointedThrice, mode)),
            block(networks.Thrice),
        )
        for mode in (True, False)
    ),
    *(
        Situation(f"nested checkpoints, use_reentrant={outer} around {inner}", nested(outer, inner), nested_plain)
        for outer in (True, False)
        for inner in (True, False)
    ),
    Situation("the whole model checkpointed", backward=passes.whole_model_checkpointed, plain=stack),
    # norms called as functions
    Situation("F.layer_norm", block(twists.FunctionalBlock), block(networks.Block), **FUNCTIONAL, site=called_norm),
    Situation("module.forward", block(twists.ForwardBlock), block(networks.Block), **FUNCTIONAL),
    Situation(
        "F.batch_norm, F.group_norm, F.instance_norm, F.rms_norm",
        partial(images, True), partial(images, False), passes.pictures, **FUNCTIONAL, site=images_norm,
    ),
    *(
        Situation(
            f"F.layer_norm in a checkpoint, use_reentrant={mode}",
            partial(stack, partial(twists.FunctionalCheckpoint, mode)), stack, **FUNCTIONAL, site=called_norm,
        )
        for mode in (True, False)
    ),
    # precision; the witness takes the tensors in their own dtype
    Situation("autocast bfloat16", backward=passes.autocast(torch.bfloat16), **BFLOAT16),
    Situation("autocast float16", backward=passes.autocast(torch.float16), **FLOAT16),
    Situation("bfloat16 model", of_dtype(torch.bfloat16), backward=passes.in_dtype(torch.bfloat16), **BFLOAT16),
    Situation("float16 model", of_dtype(torch.float16), backward=passes.in_dtype(torch.float16), **FLOAT16),
    Situation(
        "float64 model", of_dtype(torch.float64), backward=passes.in_dtype(torch.float64), share=1e-12, relative=1e-10
    ),
    # backward passes
    Situation("micro-batches of unequal size", backward=passes.accumulated),
    Situation(
        "two backward passes of one forward", backward=passes.retained, says=("their energies are added",)
    ),
    Situation("torch.autograd.grad", backward=passes.gradients_by_hand, says=("read in step",)),
    Situation(
        "torch.autograd.grad, zero_grad(set_to_none=False)", backward=passes.gradients_by_hand, says=("read in step",),
        zero_grad=partial(Optimizer.zero_grad, set_to_none=False),
    ),
    # optimizers
    Situation("clipping by norm", update=passes.clip_norm),
    Situation("clipping by value", update=passes.clip_value),
    Situation("zero_grad(set_to_none=False)", zero_grad=partial(Optimizer.zero_grad, set_to_none=False)),
    *(
        Situation(f"Adam, {kind}", optimizer=partial(torch.optim.Adam, lr=1e-3, **{kind: True}))
        for kind in ("foreach", "fused")
    ),
)  # fmt: skip
