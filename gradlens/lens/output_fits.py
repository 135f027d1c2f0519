"""Which loss the gradient at an output is of: sampled rows of both, held against a cross-entropy's own gradient.

Index legend: n sampled rows of C classes; z the output, g = dL/dz, p = softmax(z), e_y the label's unit vector. The
gradient of a cross-entropy at row i is w_i d_i, and d_i has one entry whose sign differs from that of all others: so
the label y is named by the gradient itself, by its least entry or, where the loss is maximized, by its largest. w_i is
the least-squares factor; it is the same for all rows where they weigh the same. Nothing here copies to the host.

- ``softmax``: d = p − e_y, as ``CrossEntropyLoss`` gives at logits; NLLLoss gives −w e_y at log-probabilities.
- ``twice``: cross-entropy of p taken for logits, d = p ⊙ (s − ⟨p, s⟩) for s = softmax(p) − e_y.
- ``binary``: independent entries of logits. Each is a row of two classes whose logits are 0 and z.
"""

from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

Kind: TypeAlias = Literal["softmax", "twice", "binary"]

#: Rows (or entries, of ``binary``) that are looked at.
SAMPLED = 64
#: What of a row's gradient may be something else than w d: half precision rounds its entries to 0.4 %. Of ``twice``
#: less, for NLLLoss of probabilities, −p_y, has nearly the same gradient where no class is likely.
_RESIDUAL, _RESIDUAL_TWICE = 0.02, 0.005
#: Below this ‖d‖² a row is too sure of its label for its rounded gradient to tell a factor.
_LEAST = 1e-4
_SURE = 1 - 1e-6
#: Each row of log-probabilities has Σ exp = 1, and of probabilities Σ = 1, as far as this.
_ONE = 1e-3

#: What is counted and summed of all rows, and for each of the two ways to name a label.
ALL = ("finite", "live", "grad_squares", "grad_max", "row_sum", "probabilities", "log_probabilities", "asked", "fitted")
NAMED = ("n", "weight", "weight_squares", "labels", "cross_entropy", "correct")


class Fit(NamedTuple):
    """The numbers of one kind for one backward pass, on the host.

    Attributes:
        of_all: by the names of ``ALL``.
        least: by the names of ``NAMED``, where the least entry of the gradient names the label.
        largest: the same of its largest entry.
        labels: of each row as the least and as the largest entry names it, -1 where it does not [2, n].
    """

    of_all: dict[str, float]
    least: dict[str, float]
    largest: dict[str, float]
    labels: list[list[int]]


def fit(z: Tensor, g: Tensor, kind: Kind) -> Tensor:
    """Return the numbers of sampled rows: those of ``ALL``, twice those of ``NAMED``, and the labels [.. + 2n].

    Args:
        z: rows of the output [n, C], float32 or better.
        g: rows of its gradient [n, C].
        kind: whose gradient to hold it against.
    """
    if kind == "binary":
        z, g = _two_classes(z), _two_classes(g, of_gradient=True)
    log_p = torch.log_softmax(z, 1)
    p = log_p.exp()
    finite = torch.isfinite(g.sum(1) + p.sum(1))
    g, p = torch.where(finite[:, None], g, 0.0), torch.where(finite[:, None], p, 0.0)
    squares, negative, positive = (g * g).sum(1), (g < 0).sum(1), (g > 0).sum(1)
    top, guess = p.max(1)
    # Rounding leaves nothing of the gradient at a label that is all but certain: such a row is not an ignored one.
    sure = finite & (top >= _SURE) & (g.gather(1, guess[:, None])[:, 0] == 0)
    live = finite & ((squares > 0) | sure)
    probable = (z >= 0).all(1) & ((z.sum(1) - 1).abs() < _ONE)
    logarithms = (z <= 0).all(1) & (torch.logsumexp(z, 1).abs() < _ONE)
    single = (negative + positive == 1) & logarithms
    two = g.shape[1] == 2
    rest = (_RESIDUAL_TWICE if kind == "twice" else _RESIDUAL) ** 2
    asked, fitted, one_sided = live & ~sure, torch.zeros_like(live), torch.zeros_like(live)
    named, labels = [], []
    for y, alone in (
        (g.argmin(1), negative == 1),
        (g.argmax(1), (positive == 1) & (negative >= (1 if two else 2)) | single & (positive == 1)),
    ):
        d = _direction(kind, p, y)
        along, size = (g * d).sum(1), (d * d).sum(1)
        tells = alone & live & ~sure & (size > (0.0 if kind == "twice" else _LEAST))
        w = torch.where(single, -g.gather(1, y[:, None])[:, 0], along / size.clamp_min(1e-30))
        fits = tells & (squares - along * along / size.clamp_min(1e-30) <= rest * squares)
        fits = fits | single & alone & ~sure
        known = (alone & live & (fits | ~tells)) | sure
        label = torch.where(sure, guess, y)
        asked, fitted, one_sided = asked & ~(alone & ~tells & ~single), fitted | fits, one_sided | alone
        loss = -log_p.gather(1, label[:, None])[:, 0]
        named += [
            fits.sum(), torch.where(fits, w, 0.0).sum(), torch.where(fits, w * w, 0.0).sum(),
            known.sum(), torch.where(known, loss, 0.0).sum(), (known & (label == guess)).sum(),
        ]  # fmt: skip
        labels.append(torch.where(known, label, -1))
    if kind == "twice":
        # Where p is sure of another class than the label, d has more than one negative entry.
        asked = asked & one_sided
    row_sum = g.sum(1).abs().max() / g.abs().sum(1).max().clamp_min(1e-30)
    of_all = [
        finite.sum(), live.sum(), squares.sum(), squares.max().sqrt(), row_sum,
        probable.sum(), logarithms.sum(), asked.sum(), fitted.sum(),
    ]  # fmt: skip
    return torch.cat([torch.stack([one.to(z.dtype) for one in (*of_all, *named)]), torch.cat(labels).to(z.dtype)])


def read(numbers: list[float]) -> Fit:
    """Return what ``fit`` found, copied to the host, by names."""
    a, b = len(ALL), len(NAMED)
    labels = [int(label) for label in numbers[a + 2 * b :]]
    half = len(labels) // 2
    of_all = dict(zip(ALL, numbers[:a], strict=True))
    least, largest = (dict(zip(NAMED, numbers[start : start + b], strict=True)) for start in (a, a + b))
    return Fit(of_all, least, largest, [labels[:half], labels[half:]])


def _direction(kind: Kind, p: Tensor, y: Tensor) -> Tensor:
    """Return d, [n, C]."""
    minus = torch.full_like(y[:, None], -1, dtype=p.dtype)
    if kind != "twice":
        return p.scatter_add(1, y[:, None], minus)
    s = torch.softmax(p, 1).scatter_add(1, y[:, None], minus)
    return p * (s - (p * s).sum(1, keepdim=True))


def _two_classes(rows: Tensor, of_gradient: bool = False) -> Tensor:
    """Return some entries of rows, each as a row of two classes whose first has logit 0."""
    flat = rows.reshape(-1)
    # An odd step meets every column of a table whose width is a power of two.
    some = flat[:: max(1, flat.numel() // SAMPLED) | 1][:SAMPLED]
    return torch.stack([-some if of_gradient else torch.zeros_like(some), some], 1)
