"""Networks, healthy set-ups and faults that no limit was set with: written without a look at the analyses."""

from tests.calibration.unseen import image_faults, sequence_faults, table_faults  # noqa: F401 - they declare
from tests.calibration.unseen.case import CASES, UNSEEN_IS
from tests.calibration.unseen.healthy import HEALTHY

__all__ = ["CASES", "HEALTHY", "UNSEEN_IS"]
