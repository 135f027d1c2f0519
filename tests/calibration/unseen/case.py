"""A fault in an unseen network, and which codes a reader of ``gradlens explain`` would call right."""

from dataclasses import dataclass
from typing import Any

from tests.calibration.faults import KINDS, Case, Kind, Planted
from tests.calibration.faults.kind import ONSET
from tests.calibration.run import Run
from tests.calibration.unseen.networks import UNSEEN
from tests.calibration.unseen.ways import Plant

#: In front of the name of a run.
UNSEEN_IS = "unseen--"


@dataclass(frozen=True)
class Unseen(Case):
    """One fault in one network; it is of no half."""

    @property
    def name(self) -> str:
        return f"{UNSEEN_IS}{self.network}--{self.kind.name}--{self.severity}-{self.when}".replace(" ", "_")

    @property
    def half(self) -> str:
        return "unseen"

    def planted(self) -> Planted:
        run = Run(UNSEEN[self.network], seed=self._number)
        planted = Planted(run, self.severity == "gross", ONSET if self.when == "later" else 0)
        self.kind.plant(planted)
        return planted


CASES: list[Unseen] = []


def fault(
    network: str,
    name: str,
    codes: str,
    *plants: Plant,
    at: str = "",
    later: bool = False,
    mild: bool = False,
    step: bool = True,
    **attributes: Any,
) -> None:
    """Declare a fault.

    Args:
        network: it is in.
        name: what happened.
        codes: that name it rightly, the best first; or the name of the calibration's kind that has them.
        plants: what is done.
        at: paths of what it is in, where it has a place.
        later: whether it comes at a later step.
        mild: whether it is.
        step: whether one that comes later has a step that can be told.
        attributes: of the run.
    """

    def plant(planted: Planted) -> None:
        planted.places += at.split()
        for attribute, value in attributes.items():
            setattr(planted.run, attribute, value)
        for one in plants:
            one(planted)

    right = KINDS[codes].codes if codes in KINDS else tuple(codes.split())
    variant = ("mild" if mild else "gross", "later" if later else "start")
    CASES.append(Unseen(Kind(name, right, (network,), (variant,), plant, step), network, *variant))
