"""The convolutional network for images, after that of Xu et al. 2019 (1911.07013) for MNIST.

Of theirs it is known that it has three layers and the norm under study (their Table 1, and the poster). The rest
is our choice: the layers are convolutions of 3 x 3 with one number of channels, each followed by norm, ReLU and,
while the image is larger than 7 x 7, max-pooling by 2; a linear layer reads the last one's units. The norm sees
all units of a layer as one vector, as the paper's equations do (H is the number of a layer's units), and stands
before the non-linearity, where Ba et al. 2016 put it. Weights are N(0, 2/n_in) (He et al. 2015), biases 0.

Shapes: B images, C channels, N pixels a side.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.errors import ModelError
from gradlens.lab.models.plain import Plain

#: Images are pooled while they are larger than this, a side.
_SMALLEST = 7


class CNN(Plain):
    """Convolutions with a norm each, and a linear classifier.

    The random numbers drawn do not depend on the norm, so that variants built from one seed have the same weights.

    Args:
        variant: ``plain`` or ``plain/NORM``.
        layers: convolutions.
        channels: of each of them.
        pixels: N of the images.
        classes: to tell apart.
        dropout: probability, on the units that the classifier reads.

    Raises:
        UnknownNameError: no arrangement or norm has this name.
        ModelError: the variant has residual blocks, or a size is impossible.
    """

    family = "cnn"

    def __init__(
        self,
        variant: str,
        *,
        layers: int = 3,
        channels: int = 32,
        pixels: int = 28,
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(variant)
        self._sizes = {"layers": layers, "channels": channels, "pixels": pixels, "classes": classes}
        for name, size in self._sizes.items():
            if size < 1:
                raise ModelError(f"{name} must be at least 1, got {size}.")
        if not 0 <= dropout < 1:
            raise ModelError(f"dropout must be at least 0 and below 1, got {dropout}.")
        sides = [pixels]
        for i in range(layers):
            conv = nn.Conv2d(channels if i else 1, channels, kernel_size=3, padding=1)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            # Not in a list: a list of equal parts would look like a stack of residual blocks.
            self.add_module(f"conv{i}", conv)
            self.add_module(f"norm{i}", self.new_norm(channels * sides[-1] ** 2))
            sides.append(sides[-1] // 2 if sides[-1] > _SMALLEST else sides[-1])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels * sides[-1] ** 2, classes)
        nn.init.normal_(self.head.weight, std=self.head.in_features**-0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits [B, classes] for images [B, N, N].

        Args:
            images: with one channel; they are taken in the weights' type.
            labels: not used; a batch holds them for the loss.

        Raises:
            ModelError: the images have another shape.
        """
        pixels = self._sizes["pixels"]
        if images.dim() != 3 or images.shape[1:] != (pixels, pixels):
            raise ModelError(
                f"The CNN takes images of shape [B, {pixels}, {pixels}], got {list(images.shape)}. Pass such images, "
                f"or build it with other pixels."
            )
        x = images.unsqueeze(1).to(self.head.weight.dtype)
        for i in range(self._sizes["layers"]):
            x = self._modules[f"conv{i}"](x)  # type: ignore[misc]
            x = torch.relu(self._modules[f"norm{i}"](x.flatten(1)).view_as(x))  # type: ignore[misc]
            if x.shape[-1] > _SMALLEST:
                x = F.max_pool2d(x, 2)
        logits: Tensor = self.head(self.dropout(x.flatten(1)))
        return logits

    def describe(self) -> dict[str, Any]:
        """Return the sizes, the variant and the number of parameters as plain values."""
        return super().describe() | self._sizes | {"dropout": self.dropout.p}
