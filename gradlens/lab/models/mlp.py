"""The multilayer perceptron of Ba et al. 2016 (1607.06450), section 6.6, for images whose pixels have no order.

784 pixels, hidden layers of one width (theirs are recalled to be two of 1000), a linear classifier. The norm stands
between the linear map and the ReLU, as in their Eq. 5, and not at the output. Weights are N(0, 2/n_in), biases 0.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from gradlens.errors import ModelError, UnknownNameError
from gradlens.lab.models.plain import Plain
from gradlens.lab.norms import NORMS

#: What normalizes something else than one case's units: those of a batch, or the weights (Salimans & Kingma 2016).
OTHERS = ("batch", "weight")


class MLP(Plain):
    """Linear maps with a norm and a ReLU each, and a linear classifier.

    The random numbers drawn do not depend on the norm, so that variants built from one seed have the same weights.

    Args:
        variant: ``plain`` or ``plain/NORM``.
        other: ``batch`` (BatchNorm) or ``weight`` (torch's weight norm of the hidden maps), with ``plain/none``.
        width: units in a hidden layer.
        blocks: hidden layers.
        pixels: of an image.
        classes: to tell apart.
        dropout: probability, on the units that the classifier reads.
        eps: of the norms.

    Raises:
        UnknownNameError: no arrangement, norm or other norm has this name.
        ModelError: the variant has residual blocks, or a norm besides the other, or a size is impossible.
    """

    family = "mlp"

    def __init__(
        self,
        variant: str,
        *,
        other: str = "",
        width: int = 1000,
        blocks: int = 2,
        pixels: int = 784,
        classes: int = 10,
        dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(variant)
        if other and other not in OTHERS:
            raise UnknownNameError("norm of batches or weights", other, OTHERS)
        if other and self.norm != "none":
            raise ModelError(f"A norm of {other} stands alone; got {variant!r} beside it. Take 'plain/none'.")
        if min(width, blocks) < 1 or not 0 <= dropout < 1:
            raise ModelError(
                f"width and blocks must be 1 or more, dropout in [0, 1); got {width}, {blocks}, {dropout}."
            )
        self.other, self._blocks = other, blocks
        self._sizes = {"other": other, "width": width, "blocks": blocks, "eps": eps}
        for i in range(blocks):
            linear = nn.Linear(width if i else pixels, width)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            # Not in a list: a list of equal parts would look like a stack of residual blocks.
            self.add_module(f"linear{i}", weight_norm(linear) if other == "weight" else linear)
            own = nn.BatchNorm1d(width, eps) if other == "batch" else NORMS[self.norm](width, eps=eps)
            self.add_module(f"norm{i}", own)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)
        nn.init.normal_(self.head.weight, std=width**-0.5)
        nn.init.zeros_(self.head.bias)

    def first(self, images: Tensor) -> Tensor:
        """Return what the first ReLU takes [B, width] of images [B, ...]."""
        x: Tensor = self._modules["linear0"](images.flatten(1).to(self.head.weight.dtype))  # type: ignore[misc]
        found: Tensor = self._modules["norm0"](x)  # type: ignore[misc]
        return found

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits [B, classes] for images [B, ...].

        Args:
            images: as many pixels each as the network takes.
            labels: not used; a batch holds them for the loss.
        """
        x = torch.relu(self.first(images))
        for i in range(1, self._blocks):
            x = torch.relu(self._modules[f"norm{i}"](self._modules[f"linear{i}"](x)))  # type: ignore[misc]
        logits: Tensor = self.head(self.dropout(x))
        return logits

    def describe(self) -> dict[str, Any]:
        """Return the sizes, the variant and the number of parameters as plain values."""
        norm = {"norm": f"{self.other}norm"} if self.other else {}
        return super().describe() | norm | self._sizes | {"dropout": self.dropout.p}
