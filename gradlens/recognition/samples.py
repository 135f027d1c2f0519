"""A few whole vectors of what went through a norm, copied in float64: enough to hold a formula against."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradlens.recognition.kinds import NormKind

#: At most so many vectors, and so many entries in all, but never fewer than the least vectors (a channel of a batch of
#: images may have millions of entries).
MOST_VECTORS, MOST_ENTRIES, LEAST_VECTORS = 32, 2**18, 4

#: The unit in which an output or a gradient is wrong, by the coarsest type that took part: some four roundings.
#: Float64 is no finer than float32, in which many norms compute whatever comes.
_FINE = 2e-5
_COARSE = {torch.float16: 2.0**-8, torch.bfloat16: 2.0**-5}


def tolerance(*tensors: Tensor | None) -> float:
    """Return how far, relative to its size, a result may be off that these tensors took part in.

    Autocast counts as the type that it computes in.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    dtypes = {tensor.dtype for tensor in given}
    for kind in {tensor.device.type for tensor in given}:
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            dtypes.add(torch.get_autocast_dtype(kind))
    return max([_FINE, *(_COARSE.get(dtype, 0.0) for dtype in dtypes)])


@dataclass
class Picks:
    """Which vectors of inputs of one shape are looked at, for one layout.

    Args:
        kind: says how vectors lie.
        module: the norm.
        x: an input; only its shape is kept.
        turn: which of several choices of vectors: another one each time that one told nothing.
    """

    kind: NormKind
    module: nn.Module
    x: Tensor = field(repr=False)
    turn: int = 0

    def __post_init__(self) -> None:
        self.shape, ndim = self.x.shape, self.x.dim()
        if self.kind.layout == "axes" and any(not -ndim <= axis < ndim for axis in self.kind.axes):
            raise IndexError(f"axes {self.kind.axes} of {ndim} dimensions")
        view, dims = self.kind.vectors(self.module, self.x)
        entries = [dim % view.dim() for dim in dims]
        self.order = [dim for dim in range(view.dim()) if dim not in entries] + entries
        self.sizes = [view.shape[dim] for dim in self.order[: view.dim() - len(entries)]]
        self.width = int(torch.Size([view.shape[dim] for dim in entries]).numel())
        self.vectors = int(torch.Size(self.sizes).numel())
        few = min(MOST_VECTORS, max(LEAST_VECTORS, MOST_ENTRIES // max(self.width, 1)), self.vectors)
        # First and last are among them: many losses look at one of the two only.
        steps = torch.linspace(0, self.vectors - 1, few, dtype=torch.float64).long()
        self._at = torch.unravel_index((steps + self.turn) % max(self.vectors, 1), self.sizes) if self.sizes else ()
        del self.x

    def take(self, tensor: Tensor) -> Tensor:
        """Return the vectors of a tensor that broadcasts to the input's shape: [vectors, H], copied, float64."""
        view, _ = self.kind.vectors(self.module, tensor.detach().expand(self.shape))
        picked = view.permute(self.order)[tuple(index.to(tensor.device) for index in self._at)]
        wide = torch.float32 if tensor.device.type == "mps" else torch.float64
        return picked.reshape(-1, self.width).to(wide, copy=True)


def centred(x: Tensor, kind: NormKind) -> tuple[Tensor, Tensor]:
    """Return x − μ (or x) and its norm, of vectors [vectors, H]."""
    c = x - x.mean(1, keepdim=True) if kind.centered else x
    return c, torch.linalg.vector_norm(c, dim=1, keepdim=True)
