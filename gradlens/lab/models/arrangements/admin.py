"""Admin: Liu et al. 2020, "Understanding the Difficulty of Training Transformers" (2004.08249), section 5.

Adaptive model initialization. In Post-LN a deep network's last branches weigh as much as all that is before them, which
amplifies every change of the weights. Here the skip of sub-layer i is multiplied by ω_i, which starts where it gives
the stream the variance that it would have without norms on it: 1 and those of all the branches before.
"""

from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gradlens.errors import ModelError
from gradlens.lab.models.arrangements.block import Branch
from gradlens.lab.models.arrangements.post_ln import PostLN
from gradlens.lab.models.size import Size
from gradlens.lab.models.sublayers import Attention, FeedForward

if TYPE_CHECKING:
    from gradlens.lab.models.transformer import Transformer

#: Sequences of the batch that a new model is profiled on, and their length, in tokens, where the model takes as many.
_SEQUENCES, _LENGTH = 8, 64


class Admin(PostLN, skip_is_sound=True, theory="admin"):
    """norm(ω ⊙ x + f(x)): ω [D] is learned, one for each sub-layer, and starts as `profile` finds it."""

    def __init__(self, size: Size, index: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__(size, index, causal=causal, cross=cross)
        for name in self.sublayers:
            self.register_parameter(f"{name}_omega", nn.Parameter(torch.ones(size.width)))

    def sublayer(self, name: str, x: Tensor, branch: Branch) -> Tensor:
        """Return norm(ω ⊙ x + f(x))."""
        return self.normed(f"{name}_norm", self.omega(name) * x + self.dropout(branch(x)))

    def omega(self, name: str) -> nn.Parameter:
        """Return ω [D] of the named sub-layer."""
        omega: nn.Parameter = getattr(self, f"{name}_omega")
        return omega

    @classmethod
    def prepare(cls, model: "Transformer") -> None:
        """Profile the model on random tokens; it draws no number from torch's global generators."""
        super().prepare(model)
        profile(model, *_random_batch(model))


@torch.no_grad()
def profile(model: "Transformer", *batch: Tensor) -> None:
    """Set every ω from one forward pass, without dropout and with ω = 1.

    ω_1 = 1, ω_{i+1} = √(1 + Σ_{j≤i} Var f_j), over the sub-layers of a stack in forward order; encoder and decoder are
    counted each by itself. Var f_j is over all entries of the branch's output [B, T, D].

    A new model has been profiled on 8 sequences of random tokens; call this to profile it on data, before training.

    Args:
        model: a Transformer of the arrangement ``admin``.
        batch: what the model takes, tokens [B, T] or source [B, S] and target [B, T]; what is padding counts too.

    Raises:
        ModelError: the model is of another arrangement, or does not take the batch.
    """
    if model.size.arrangement != "admin":
        raise ModelError(
            f"Profiling sets the ω of a model arranged as 'admin'; got one arranged as {model.size.arrangement!r}, "
            f"which has none. Build it as 'admin'."
        )
    stacks = [
        [block.omega(name) for block in stack if isinstance(block, Admin) for name in block.sublayers]
        for stack in model.modules()
        if isinstance(stack, nn.ModuleList)
    ]
    for omega in chain(*stacks):
        omega.fill_(1)
    variances = iter(_branch_variances(model, batch))
    for stack in stacks:
        before = torch.ones_like(stack[0][0])
        for omega in stack:
            omega.copy_(before.sqrt())
            before = before + next(variances)


def _branch_variances(model: "Transformer", batch: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the variance of each branch's output, in forward order, in a pass without dropout."""
    found: list[Tensor] = []
    handles = [
        branch.register_forward_hook(lambda _module, _args, out: found.append(out.var(correction=0)))
        for branch in model.modules()
        if isinstance(branch, Attention | FeedForward)
    ]
    training = model.training
    model.eval()
    try:
        model(*batch)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return found


def _random_batch(model: "Transformer") -> tuple[Tensor, ...]:
    """Return sequences of random tokens, none of them padding, always the same for models of one size."""
    size = model.size
    tokens = torch.arange(size.vocab, device="cpu")
    if model.pad is not None:
        tokens = tokens[tokens != model.pad]
    generator = torch.Generator("cpu").manual_seed(0)
    count = 2 if size.kind == "encoder-decoder" else 1
    shape = (count, _SEQUENCES, min(_LENGTH, size.max_length))
    drawn = tokens[torch.randint(len(tokens), shape, generator=generator, device="cpu")]
    return drawn.to(model.embedding.token.weight.device).unbind()
