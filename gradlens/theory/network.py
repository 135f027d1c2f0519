"""What the theory needs to know of a Transformer and the batch it is measured on."""

from dataclasses import dataclass

from gradlens.errors import GradlensError
from gradlens.theory.activations import ACTIVATIONS
from gradlens.theory.arrangements import ARRANGEMENTS

KINDS = ("decoder", "encoder", "encoder-decoder")


class OutsideTheoryError(GradlensError):
    """The model is of a kind that the theory says nothing about."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A Transformer of the zoo and the batch it is measured on.

    Attributes:
        arrangement: name in ``ARRANGEMENTS``.
        kind: ``decoder``, ``encoder`` or ``encoder-decoder``.
        blocks: L, of each stack.
        width: d.
        ffn: f.
        activation: name in ``ACTIVATIONS``.
        outputs: V, of the head.
        sequences: B.
        length: tokens of a sequence whose label is predicted; of the target, in an encoder-decoder.
        source_length: tokens of a source.
        dropout: probability, after the embedding and each branch.
        coincidence: probability that two tokens are the same, in one sequence and in two; 1/V where they are
            uniform.
        label_coincidence: the same of the labels.
        source_coincidence: the same of the tokens of the sources.
        smoothing: of the labels.
        centered: whether the norms subtract a mean, as LayerNorm does and RMSNorm does not. It matters over the hidden
            units of an FFN alone, whose mean is not 0.
    """

    arrangement: str
    kind: str
    blocks: int
    width: int
    ffn: int
    activation: str = "relu"
    outputs: int
    sequences: int
    length: int
    source_length: int = 1
    dropout: float = 0.0
    coincidence: tuple[float, float] = (0.0, 0.0)
    label_coincidence: tuple[float, float] = (0.0, 0.0)
    source_coincidence: tuple[float, float] = (0.0, 0.0)
    smoothing: float = 0.0
    centered: bool = True

    def __post_init__(self) -> None:
        for name, value, known in (
            ("arrangement", self.arrangement, ARRANGEMENTS),
            ("activation", self.activation, ACTIVATIONS),
            ("kind", self.kind, KINDS),
        ):
            if value not in known:
                raise OutsideTheoryError(
                    f"The theory of whole Transformers covers {name} {', '.join(known)}; got {value!r}. "
                    f"Measure it with gradlens.at_init instead."
                )
