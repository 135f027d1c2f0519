"""Cohen et al. 2022, "Adaptive Gradient Methods at the Edge of Stability" (2207.14484).

On a quadratic with the largest curvature λ, gradient descent of step η stays bounded while η·λ is below an
edge that depends on the momentum alone. An adaptive method with preconditioner P obeys the same edge with the largest
eigenvalue of P⁻¹H, as long as P changes slowly.
"""

from typing import Literal

from gradlens.errors import GradlensError

MomentumKind = Literal["ema", "heavy-ball"]


def stability_edge(beta: float, kind: MomentumKind = "ema") -> float:
    """Return the largest stable η·λ: 2 without momentum.

    Args:
        beta: momentum, 0 <= beta < 1; ``betas[0]`` of Adam.
        kind: ``"ema"``, m ← β m + (1 − β) g, as in Adam: (2 + 2β)/(1 − β). ``"heavy-ball"``, m ← β m + g, as in
            ``torch.optim.SGD`` without dampening: 2 + 2β.

    Raises:
        GradlensError: beta is out of range, or there is no such kind.
    """
    if not 0 <= beta < 1:
        raise GradlensError(f"Momentum must be at least 0 and below 1; got {beta}.")
    if kind == "ema":
        return (2 + 2 * beta) / (1 - beta)
    if kind == "heavy-ball":
        return 2 + 2 * beta
    raise GradlensError(f"Momentum must be of kind 'ema' or 'heavy-ball'; got {kind!r}.")
