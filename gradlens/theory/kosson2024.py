"""Kosson et al. 2024, "Rotational Equilibrium" (2305.17212): what weight decay does to weights that are free of scale.

Where the loss does not depend on the size of a weight w, ⟨g, w⟩ = 0: steps along g only lengthen w, and only decay
shortens it (van Laarhoven 2017, 1706.05350). With a step of γ·u, where a gradient's contributions to all later u sum to
``total`` times that gradient, and gradients of different steps are not correlated,

    Δ‖w‖² = −2 γ·total·λ·‖w‖² + (γ·total)²·‖g‖²,

whose equilibrium is ‖g‖/‖w‖ = √(2λ/(γ·total)), the ratio of Defazio 2025 (2506.02285) for plain SGD. What one step
turns w by is then √(2 γ·total·λ·spread), spread = Σc²/(Σc)² over the contributions c. All holds for γλ ≪ 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Steps:
    """How an optimizer makes steps of gradients.

    Attributes:
        total: what one gradient contributes to all steps together, over the rate.
        spread: Σc²/(Σc)² of its contributions c to single steps: 1 without momentum.
        scaled: whether gradients are divided by their own size, as in AdamW: their norm then has no equilibrium.
    """

    total: float
    spread: float
    scaled: bool = False

    def relaxation(self, lr: float, decay: float) -> float:
        """Return the share of ‖w‖² that decay takes in a step, 2γ·total·λ: one over the steps to equilibrium."""
        return 2 * lr * self.total * decay

    def rotation(self, lr: float, decay: float) -> float:
        """Return ‖Δw‖/‖w‖ of a step in equilibrium: root mean square, in radians where it is small."""
        return math.sqrt(self.relaxation(lr, decay) * self.spread)

    def gradient(self, lr: float, decay: float) -> float:
        """Return ‖g‖/‖w‖ in equilibrium, √(2λ/(γ·total)), in 1/√(lr · step); NaN for ``scaled`` ones."""
        return math.nan if self.scaled or lr <= 0 else math.sqrt(2 * decay / (lr * self.total))


def sgd(momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False) -> Steps:
    """Return the steps of ``torch.optim.SGD``, whose decay is a part of the gradient and so goes through momentum.

    Args:
        momentum: β of v ← βv + (1 − dampening)g.
        dampening: as above.
        nesterov: whether the step is g + βv instead of v.
    """
    later = momentum**2 / (1 - momentum**2)
    squares = (1 + momentum) ** 2 + momentum**2 * later if nesterov else 1 + later
    total = 1 / (1 - momentum)
    return Steps((1 - dampening) * total, squares / total**2)


def adamw(betas: Sequence[float] = (0.9, 0.999)) -> Steps:
    """Return the steps of AdamW, while the scale of gradients changes slowly; λ is multiplied by the rate, as in torch.

    Adam's own decay is divided by the gradients' size as they are: it is not covered.

    Args:
        betas: of Adam; the second plays no part.
    """
    return Steps(1.0, (1 - betas[0]) / (1 + betas[0]), scaled=True)
