"""Networks without residual blocks: the arrangement ``plain``, one norm in each hidden layer."""

from typing import Any

from torch import nn

from gradlens.lab.models.variants import PLAIN, plain_variant
from gradlens.lab.norms import NORMS


class Plain(nn.Module):
    """The base of networks that have no stream to arrange norms around, such as a CNN or an MLP.

    A subclass builds its layers with ``new_norm`` where the paper has the norm under study.

    Args:
        variant: ``plain`` or ``plain/NORM``, such as ``plain/adanorm``.

    Attributes:
        norm: the norm's name in ``NORMS``.
        family: what ``describe`` calls the network.

    Raises:
        UnknownNameError: no arrangement or norm has this name.
        ModelError: the arrangement is one of residual blocks.
    """

    family = "plain"

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.norm = plain_variant(variant)

    def new_norm(self, width: int) -> nn.Module:
        """Return the norm under study for vectors of this width, the last dimension of its input."""
        norm: nn.Module = NORMS[self.norm](width)
        return norm

    def describe(self) -> dict[str, Any]:
        """Return family, arrangement, norm and number of parameters as plain values; subclasses add their sizes."""
        parameters = sum(parameter.numel() for parameter in self.parameters())
        return {"family": self.family, "arrangement": PLAIN, "norm": self.norm, "parameters": parameters}
