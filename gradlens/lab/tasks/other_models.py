"""Tasks whose data is another task's, with another kind of model: an MLP for images, a recurrent network for text."""

from typing import Any

from torch import nn

from gradlens.lab.models.mlp import MLP
from gradlens.lab.models.recurrent import Recurrent
from gradlens.lab.tasks.digits import CLASSES, SIDE
from gradlens.lab.tasks.images import Images
from gradlens.lab.tasks.stdlib_source import VOCAB, StdlibSource


class FlatImages(Images):
    """The task ``images-mlp``: the digits of ``images`` for a network that knows nothing of neighbours."""

    name = "images-mlp"

    def model(
        self, variant: str, *, width: int = 1000, blocks: int = 2, heads: int | None = None, **size: Any
    ) -> nn.Module:
        """Build an MLP.

        Args:
            variant: ``plain`` or ``plain/NORM``.
            width: units in a hidden layer.
            blocks: hidden layers.
            heads: not used.
            size: further sizes of ``MLP``.
        """
        return MLP(variant, width=width, blocks=blocks, pixels=SIDE * SIDE, classes=CLASSES, **size)


class RecurrentSource(StdlibSource):
    """The task ``lm-recurrent``: the text of ``lm`` for a recurrent network."""

    name = "lm-recurrent"

    def model(self, variant: str, **size: Any) -> nn.Module:
        """Build a recurrent network over bytes; ``size`` goes to ``Recurrent``."""
        return Recurrent(variant, **size, vocab=VOCAB)
