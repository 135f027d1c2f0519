"""A kind of fault: what plants it, which codes name it rightly, and where it is tried."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.calibration.networks import NETWORKS
from tests.calibration.run import Run

#: The step at which a fault that comes later comes, of 160.
ONSET = 80
#: Severity and beginning.
Variant = tuple[str, str]
BOTH: tuple[Variant, ...] = (("gross", "start"), ("mild", "start"))
LATER: tuple[Variant, ...] = (("gross", "later"), ("mild", "later"))
GROSS: tuple[Variant, ...] = (("gross", "start"),)
WHENEVER: tuple[Variant, ...] = (("gross", "start"), ("mild", "start"), ("gross", "later"))

RESIDUAL = ("gpt", "vit", "post", "resnet", "hybrid", "dense", "mixer")
PRE_NORM = ("gpt", "vit", "hybrid", "dense", "mixer")
TOKENS = ("gpt", "vit", "post", "hybrid", "mixer")
ATTENTION = ("gpt", "vit", "post", "hybrid")
BATCH_NORM = ("resnet", "cnn", "hybrid", "unet")
RELU = ("vit", "post", "dense", "resnet")
IMAGES = ("vit", "post", "resnet", "mlp", "gru", "cnn", "autoencoder")
TEXT = ("gpt", "lstm", "zoo", "gpt2", "bert", "llama")
CLASSIFIERS = ("gpt", "resnet", "dense", "lstm", "mixer", "bert")
ANY = ("gpt", "resnet", "dense", "lstm", "unet", "encoder")
MOMENTUM = ("resnet", "cnn", "mlp", "dense", "autoencoder")


@dataclass
class Planted:
    """A fault that is being planted in a run.

    Attributes:
        run: to be changed.
        gross: whether it is, or mild.
        step: from which on it is there; 0 from the start.
        places: paths of what it is in, where it has a place; naming one of them is right.
    """

    run: Run
    gross: bool
    step: int
    places: list[str] = field(default_factory=list)

    def pick(self, gross: float, mild: float) -> float:
        """Return the number of the severity."""
        return gross if self.gross else mild


Plant = Callable[[Planted], None]


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: of it.
        codes: that name it rightly, the best first.
        networks: that it is planted in.
        variants: severities and beginnings.
        plant: changes a run.
        has_step: whether one that comes later has a step that can be told.
    """

    name: str
    codes: tuple[str, ...]
    networks: tuple[str, ...]
    variants: tuple[Variant, ...]
    plant: Plant
    has_step: bool = True


KINDS: dict[str, Kind] = {}


def kind(
    name: str, *codes: str, on: tuple[str, ...], variants: tuple[Variant, ...] = BOTH, has_step: bool = True
) -> Callable[[Plant], Plant]:
    """Register a kind of fault."""

    def registered(plant: Plant) -> Plant:
        assert name not in KINDS, name
        KINDS[name] = Kind(name, codes, on, variants, plant, has_step)
        return plant

    return registered


@dataclass(frozen=True)
class Case:
    """One kind in one network."""

    kind: Kind
    network: str
    severity: str
    when: str

    @property
    def name(self) -> str:
        return f"{self.kind.name}--{self.network}--{self.severity}-{self.when}".replace(" ", "_")

    @property
    def half(self) -> str:
        """The half on which limits may be set, or that which is published."""
        turn = self._number + self.kind.networks.index(self.network)
        return "published" if turn % 2 else "development"

    @property
    def _number(self) -> int:
        """A number of the kind that stays where kinds are added."""
        return zlib.crc32(self.kind.name.encode()) % 10_000

    @property
    def step(self) -> int | None:
        """The step from which on the fault is there, where it has one."""
        return ONSET if self.when == "later" and self.kind.has_step else None

    def planted(self) -> Planted:
        """Return a run with the fault in it."""
        # Each network has weights and data of its own in each kind.
        run = Run(NETWORKS[self.network], seed=self._number)
        planted = Planted(run, self.severity == "gross", ONSET if self.when == "later" else 0)
        self.kind.plant(planted)
        return planted


def cases() -> list[Case]:
    """Return every case."""
    return [Case(k, network, *variant) for k in KINDS.values() for network in k.networks for variant in k.variants]
