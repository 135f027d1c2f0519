"""AdaNorm: Xu et al. 2019, "Understanding and Improving Layer Normalization" (1911.07013)."""

from typing import ClassVar

from torch import Tensor, nn

from gradlens.errors import ModelError
from gradlens.lab.norms.layernorm_simple import LayerNormSimple


class Factor(nn.Module):
    """φ(y) = C(1 − k y), a module of its own so that ``watch`` can name it: its input is y, its output φ."""

    def __init__(self, scale: float, k: float, detach: bool) -> None:
        super().__init__()
        self.scale, self.k, self.detach = scale, k, detach

    def forward(self, y: Tensor) -> Tensor:
        """Return φ for y [..., H], of the same shape."""
        factor = self.scale * (1 - self.k * y)
        return factor.detach() if self.detach else factor

    def extra_repr(self) -> str:
        """Show C, k and whether φ has a gradient in the module's repr."""
        return f"scale={self.scale}, k={self.k}, detach={self.detach}"


class AdaNorm(nn.Module):
    """z = φ(y) ⊙ y with y = LayerNorm-simple(x) and φ(y) = C(1 − k y), φ without gradient.

    For every x, mean(φ) = C and mean(z) = −k C (up to eps). μ and σ are those of the paper's equations; the authors'
    code takes others, see ``gradlens.lab.norms.unbiased``.

    Args:
        width: H, the length of the last dimension.
        eps: added to the variance, under the root.
        scale: C > 0. Default: 1, as in the example of the authors' code.
        k: slope of φ, from 0 up. Default: 1/10, as in the paper: then φ > 0 for 99 % of the entries (Chebyshev).
        detach_factor: False lets the gradient through φ too: not AdaNorm, but it shows what detaching does. By
            default as the class says.

    Raises:
        ModelError: C or k is outside its range.
    """

    normalizer: ClassVar[type[nn.Module]] = LayerNormSimple
    detaches: ClassVar[bool] = True

    theory = "layernorm"

    def __init__(
        self, width: int, eps: float = 1e-5, *, scale: float = 1.0, k: float = 0.1, detach_factor: bool | None = None
    ) -> None:
        super().__init__()
        if not (0 < scale < float("inf") and 0 <= k < float("inf")):
            raise ModelError(f"AdaNorm needs a scale C above 0 and a slope k from 0 up; got scale={scale}, k={k}.")
        self.normalize = self.normalizer(width, eps)
        self.factor = Factor(scale, k, self.detaches if detach_factor is None else detach_factor)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize x [..., H] over its last dimension and weigh each entry by φ."""
        y: Tensor = self.normalize(x)
        factor: Tensor = self.factor(y)
        return factor * y


class UndetachedAdaNorm(AdaNorm):
    """AdaNorm whose factor φ has a gradient, 2 C (½ − k y) ⊙ g in all at y: what the paper's AdaNorm leaves out."""

    detaches: ClassVar[bool] = False
