"""The faults, by theme."""

from tests.calibration.faults import inputs, inside, losses, rates, structure  # noqa: F401 - they register
from tests.calibration.faults.kind import KINDS, Case, Kind, Planted, cases

__all__ = ["KINDS", "Case", "Kind", "Planted", "cases"]
