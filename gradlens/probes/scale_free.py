"""Which parameters the loss does not feel the size of (Ba et al. 2016, 1607.06450, Table 1, told by gradients).

Scaling W leaves the loss as it is where ⟨dL/dW, W⟩ = 0; scaling each row by itself, where ⟨g_i, w_i⟩ = 0 for every row
i, the weights into one unit; adding one vector to all rows, where 1ᵀ dL/dW = 0. (Here and in torch a row of W is what
Ba et al. write as a column.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gradlens.probes.loss import Loss
from gradlens.probes.reading import Reading

#: A product is 0 where it is at most this much of what a random gradient of the same size would have, and this cosine.
#: The eps of a norm leaves eps/σ² of what there would be without the norm.
CHANCE, COSINE = 1e-3, 1e-3
_MISLEADS = (
    "It is told from one gradient: a product that is 0 by chance (one in a thousand) counts, and an eps of a "
    "thousandth of σ² or more hides a size that the norm takes out."
)


@dataclass(frozen=True)
class Freedom:
    """What the loss does not depend on, of one parameter.

    Attributes:
        name: of the parameter.
        whole: |⟨g, W⟩| / ‖g‖‖W‖; its size.
        rows: the root of the mean over rows of (⟨g_i, w_i⟩ / ‖g_i‖‖w_i‖)², rows with a gradient alone; NaN for vectors.
        ones: ‖1ᵀg‖ / (√rows ‖g‖): an offset that all rows share; NaN for vectors.
        free: which of them are 0, as ``CHANCE`` and ``COSINE`` have it.
    """

    name: str
    whole: float
    rows: float
    ones: float
    free: tuple[str, ...]


def freedoms(loss: Loss) -> list[Freedom]:
    """Return what the loss does not depend on of each parameter that has a gradient and is not 0.

    Args:
        loss: in float64, for the products to be told from rounding.
    """
    grads = loss.split(loss.gradient())
    found = (_freedom(*of) for of in zip(loss.names, grads, loss.parameters, strict=True))
    return [freedom for freedom in found if freedom is not None]


def _freedom(name: str, grad: Tensor, weight: Tensor) -> Freedom | None:
    g, w = grad.double(), weight.double()
    size, length = float(g.norm()), float(w.norm())
    # What is 0 but for rounding, as a bias in front of BatchNorm, has no direction.
    if not size > 1e-14 * max(1.0, length) or length == 0:
        return None
    whole = abs(float((g * w).sum())) / (size * length)
    values, chances = {"whole": whole}, {"whole": g.numel() ** -0.5}
    if g.dim() > 1 and g.shape[0] > 1 and g[0].numel() > 1:
        g, w = g.reshape(len(g), -1), w.reshape(len(w), -1)
        sizes = g.norm(dim=1) * w.norm(dim=1)
        cosines = ((g * w).sum(dim=1) / sizes)[sizes > 0]
        values |= {"rows": float(cosines.square().mean().sqrt()), "ones": float(g.sum(dim=0).norm()) / size}
        values["ones"] /= len(g) ** 0.5
        chances |= {"rows": g.shape[1] ** -0.5, "ones": len(g) ** -0.5}
    free = tuple(what for what, value in values.items() if value <= min(COSINE, CHANCE * chances[what]))
    nan = float("nan")
    return Freedom(name, whole, values.get("rows", nan), values.get("ones", nan), free)


def readings(model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor] | None, seed: int) -> list[Reading]:
    """Return a reading for each freedom of each parameter; the probe of ``PROBES``. One pass in float64 gives them all.

    Their names are those of the parameter in its module and of ``Freedom``'s attribute. Where there is none, one says
    of how many parameters.
    """
    loss = Loss(model, batch, loss_fn, seed=seed, double=True)
    found = freedoms(loss)
    shared: dict[str, Any] = {"probe": "scale_free", "misleads": _MISLEADS, "notes": loss.notes}
    cost: dict[str, Any] = {"forward": loss.forward, "backward": loss.backward}
    free = [freedom for freedom in found if freedom.free]
    listed = [Reading(name="free parameters", value=float(len(free)), unit=f"of {len(found)}", **cost, **shared)]
    for freedom in free:
        site, _, leaf = freedom.name.rpartition(".")
        listed += [
            Reading(name=f"{leaf}: {what}", value=getattr(freedom, what), site=site, **shared) for what in freedom.free
        ]
    return listed
