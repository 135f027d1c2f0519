"""The largest eigenvalue of a symmetric operator that is known only by its products with vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from gradlens.errors import GradlensError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Eigenpair:
    """A Ritz pair.

    Attributes:
        value: the Rayleigh quotient of ``vector``.
        residual: ‖A v − value v‖ of the unit vector: an eigenvalue is no further than this from ``value``.
        vector: of unit length [n].
    """

    value: float
    residual: float
    vector: Array


def largest_eigenvalue(product: Callable[[Array], Array], size: int, *, tolerance: float, seed: int) -> Eigenpair:
    """Return the largest algebraic eigenvalue, by ARPACK's implicitly restarted Lanczos method.

    A Hessian has negative eigenvalues as large as its positive ones (Post-LN at initialization), and power iteration
    would return those.

    Args:
        product: A v for v [n].
        size: n.
        tolerance: of the eigenvalue, relative.
        seed: of the vector to start from.

    Raises:
        GradlensError: no convergence, or a product that is not finite.
    """

    def checked(vector: Array) -> Array:
        image = product(vector.reshape(-1))
        if not np.isfinite(image).all():
            raise GradlensError(
                "A Hessian must be finite; its product with a vector is not. Run the model in float32 or float64, "
                "or probe it where its gradients are finite."
            )
        return image

    start = np.random.default_rng(seed).normal(size=size)
    if size < 3:  # smaller than a Krylov space
        _, vectors = np.linalg.eigh(np.stack([checked(unit) for unit in np.eye(size)]))
        vector = vectors[:, -1]
    elif not checked(start).any():  # ARPACK takes no operator that is zero
        return Eigenpair(0.0, 0.0, start / np.linalg.norm(start))
    else:
        operator = LinearOperator((size, size), matvec=checked, dtype=np.float64)
        try:
            _, vectors = eigsh(operator, k=1, which="LA", tol=tolerance, v0=start, ncv=min(size, 20))
        except ArpackNoConvergence as error:
            raise GradlensError(
                f"The largest eigenvalue must be found to a tolerance of {tolerance:g}; Lanczos iteration did not "
                "come that close. Raise the tolerance, or use float64."
            ) from error
        vector = vectors[:, 0]
    image = checked(vector)
    value = float(vector @ image)
    return Eigenpair(value, float(np.linalg.norm(image - value * vector)), vector)
