"""Which loss the gradient at an output is of: sampled rows of both, held against a cross-entropy's own gradient.

Index legend: n sampled rows of C classes; z the output, g = dL/dz, p = softmax(z), e_y the label's unit vector. The
gradient of a cross-entropy at row i is w_i d_i, and d_i has one entry whose sign differs from that of all others: so
the label y is named by the gradient itself, by its least entry or, where the loss is maximized, by its largest. w_i is
the least-squares factor; it is the same for all rows where they weigh the same. On the device rows are reduced to a few
numbers each, in as few operations as will do and without a copy to the host; what they tell is worked out there.

- ``softmax``: d = p − e_y, as ``CrossEntropyLoss`` gives at logits; NLLLoss gives −w e_y at log-probabilities.
- ``twice``: cross-entropy of p taken for logits, d = p ⊙ (s − ⟨p, s⟩) for s = softmax(p) − e_y.
- ``binary``: independent entries of logits. Each is a row of two classes whose logits are 0 and z.
"""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.linalg import vecdot

Kind: TypeAlias = Literal["softmax", "twice", "binary"]
Array: TypeAlias = npt.NDArray[np.float64]

#: Rows (or entries, of ``binary``) that are looked at.
SAMPLED = 64
#: What of a row's gradient may be something else than w d: half precision rounds its entries to 0.4 %. Of ``twice``
#: less, for NLLLoss of probabilities, −p_y, has nearly the same gradient where no class is likely.
_RESIDUAL, _RESIDUAL_TWICE = 0.02, 0.005
#: Below this ‖d‖² a row is too sure of its label for its rounded gradient to tell a factor.
_LEAST = 1e-2
_SURE = 1 - 1e-6
#: Each row of log-probabilities has Σ exp = 1, and of probabilities Σ = 1, as far as this.
_ONE = 1e-3

#: What is told of each row: places of the least and largest gradient and of the largest output, ln p and g there; then
#: Σg, Σ|g|, Σg², how many g are below and above 0, ⟨g, p⟩, Σp², least and largest z, Σz; of ``twice`` ⟨g, d⟩ and ‖d‖²
#: with either name of the label.
_OF_ROWS = 19


class Named(NamedTuple):
    """Sums over the rows whose label is named in one way.

    Attributes:
        n: rows that fit.
        weight: Σ w over them.
        weight_squares: Σ w².
        cross_entropy: Σ −ln p_y over the rows whose label is known.
        correct: those of them whose largest output is the label.
        labels: of each row, -1 where it is not known [n].
    """

    n: float
    weight: float
    weight_squares: float
    cross_entropy: float
    correct: float
    labels: npt.NDArray[np.int64]


class Fit(NamedTuple):
    """What sampled rows tell under one kind.

    Attributes:
        finite: rows that are.
        live: those of them whose gradient is not 0, or only by rounding.
        grad_squares: Σ ‖g‖².
        grad_max: max ‖g‖.
        row_sum: max |Σ_j g_j| over max Σ_j |g_j|.
        probabilities: rows that are such.
        log_probabilities: rows that are such.
        asked: rows that can tell.
        fitted: those of them that fit.
        least: where the least entry of the gradient names the label.
        largest: the same of its largest entry.
    """

    finite: float
    live: float
    grad_squares: float
    grad_max: float
    row_sum: float
    probabilities: float
    log_probabilities: float
    asked: float
    fitted: float
    least: Named
    largest: Named


def reduced(z: Tensor, g: Tensor, kind: Kind) -> Tensor:
    """Return a few numbers of each row, [n, _OF_ROWS], of ``twice`` some more.

    Args:
        z: rows of the output [n, C], float32 or better.
        g: rows of its gradient [n, C].
        kind: whose gradient it is to be held against.
    """
    if kind == "binary":
        z, g = _two_classes(z), _two_classes(g, of_gradient=True)
    log_p = torch.log_softmax(z, 1)
    p = log_p.exp()
    at = torch.stack((g.argmin(1), g.argmax(1), log_p.argmax(1)), 1)
    columns = [
        g.sum(1), g.abs().sum(1), vecdot(g, g), (g < 0).sum(1), (g > 0).sum(1), vecdot(g, p), vecdot(p, p),
        z.amin(1), z.amax(1), z.sum(1),
    ]  # fmt: skip
    if kind == "twice":
        columns += [number for which in (0, 1) for number in _of_twice(g, p, at[:, which : which + 1])]
    parts = [at, log_p.gather(1, at), g.gather(1, at), torch.stack([one.to(z.dtype) for one in columns], 1)]
    return torch.cat([part.to(z.dtype) for part in parts], 1)


def fit(rows: Array, classes: int, kind: Kind) -> Fit:
    """Return what rows tell.

    Args:
        rows: of ``reduced``, on the host.
        classes: entries of a row; of ``binary`` two.
        kind: as there.
    """
    with np.errstate(all="ignore"):
        return _fit(rows.T, classes, kind)


def _fit(columns: Array, classes: int, kind: Kind) -> Fit:
    places, log_p, g = columns[:3], columns[3:6], columns[6:9]
    total, absolute, squares, negative, positive, along_p, p_squares, low, high, z_sum = columns[9:_OF_ROWS]
    finite = np.isfinite(total + along_p)
    single = finite & (negative + positive == 1)
    # Rounding leaves nothing of the gradient at a label that is all but certain: such a row is not an ignored one.
    sure = finite & (log_p[2] >= np.log(_SURE)) & (g[2] == 0)
    live = finite & ((absolute > 0) | sure)
    logarithms = finite & (high <= 0) & (np.abs(high - log_p[2]) < _ONE)
    probable = finite & (low >= 0) & (np.abs(z_sum - 1) < _ONE)
    single &= logarithms & ~sure
    asked, fitted, one_sided = live & ~sure, np.zeros_like(live), np.zeros_like(live)
    named = []
    for which, alone in enumerate((
        negative == 1,
        (positive == 1) & ((negative >= (1 if classes == 2 else 2)) | single),
    )):  # fmt: skip
        p = np.exp(log_p[which])
        along, size = along_p - g[which], p_squares - 2 * p + 1
        if kind == "twice":
            along, size = columns[_OF_ROWS + 2 * which :][:2]
        tells = alone & live & ~sure & (size > (0.0 if kind == "twice" else _LEAST))
        w = np.where(single, -g[which], along / size)
        rest = (_RESIDUAL_TWICE if kind == "twice" else _RESIDUAL) ** 2
        fits = (tells & (squares - along * along / size <= rest * squares)) | (single & alone)
        known = (alone & live & (fits | ~tells)) | sure
        label = np.where(known, np.where(sure, places[2], places[which]), -1).astype(np.int64)
        asked, fitted, one_sided = asked & ~(alone & ~tells & ~single), fitted | fits, one_sided | alone
        loss = -np.where(sure, log_p[2], log_p[which])[known].sum()
        correct = float((known & (label == places[2])).sum())
        named.append(Named(float(fits.sum()), w[fits].sum(), np.square(w[fits]).sum(), loss, correct, label))
    if kind == "twice":
        # Where p is sure of another class than the label, d has more than one negative entry.
        asked &= one_sided
    row_sum = np.abs(total[finite]).max(initial=0.0) / max(absolute[finite].max(initial=0.0), 1e-300)
    return Fit(
        finite=float(finite.sum()),
        live=float(live.sum()),
        grad_squares=float(squares[finite].sum()),
        grad_max=float(np.sqrt(squares[finite].max(initial=0.0))),
        row_sum=float(row_sum),
        probabilities=float(probable.sum()),
        log_probabilities=float(logarithms.sum()),
        asked=float(asked.sum()),
        fitted=float(fitted.sum()),
        least=named[0],
        largest=named[1],
    )


def _of_twice(g: Tensor, p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return ⟨g, d⟩ and ‖d‖² of ``twice``, [n] each."""
    s = torch.softmax(p, 1).scatter_add(1, y, torch.full_like(y, -1, dtype=p.dtype))
    d = p * (s - vecdot(p, s)[:, None])
    return vecdot(g, d), vecdot(d, d)


def _two_classes(rows: Tensor, of_gradient: bool = False) -> Tensor:
    """Return some entries of rows, each as a row of two classes whose first has logit 0."""
    flat = rows.reshape(-1)
    # An odd step meets every column of a table whose width is a power of two.
    some = flat[:: max(1, flat.numel() // SAMPLED) | 1][:SAMPLED]
    return torch.stack([-some if of_gradient else torch.zeros_like(some), some], 1)
