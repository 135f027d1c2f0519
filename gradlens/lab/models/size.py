"""The size of a Transformer: what is the same in every variant of a comparison, and the variant itself."""

from dataclasses import dataclass

from gradlens.errors import ModelError, UnknownNameError
from gradlens.lab.models.sublayers import ACTIVATIONS

KINDS = ("decoder", "encoder", "encoder-decoder")
#: Of the matrices: Xavier normal as in Xiong et al. 2020, or torch's own U(±1/√n_in), which is ``--init-method km`` in
#: the code of Xu et al. 2019.
INITS = ("xavier", "torch")


@dataclass(frozen=True, kw_only=True)
class Size:
    """All that `gradlens.lab.models.transformer.Transformer` is built from; arguments as there.

    Raises:
        UnknownNameError: `kind`, `activation` or `init` is unknown.
        ModelError: a count is below 1, heads do not divide the width, or dropout is outside [0, 1).
    """

    kind: str
    arrangement: str
    norm: str
    width: int
    blocks: int
    ffn: int
    heads: int
    activation: str
    dropout: float
    vocab: int
    max_length: int
    init: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("kind of Transformer", self.kind, KINDS)
        if self.activation not in ACTIVATIONS:
            raise UnknownNameError("activation", self.activation, ACTIVATIONS)
        if self.init not in INITS:
            raise UnknownNameError("initialization", self.init, INITS)
        for name in ("width", "blocks", "ffn", "heads", "vocab", "max_length"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.width % self.heads:
            raise ModelError(
                f"heads must divide width, got width={self.width} and heads={self.heads}. "
                f"Take a width that is a multiple of {self.heads}, or other heads."
            )
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout must be at least 0 and below 1, got {self.dropout}.")
