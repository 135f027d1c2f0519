"""How it is measured: taps on normalizations, sums on the device, one copy to the host a recorded step."""

from gradlens.lens.attaching import attach
from gradlens.lens.audit import Audit
from gradlens.lens.initialization import at_init
from gradlens.lens.lens import Lens
from gradlens.recognition import NormKind, register_norm

__all__ = ["Audit", "Lens", "NormKind", "at_init", "attach", "register_norm"]
