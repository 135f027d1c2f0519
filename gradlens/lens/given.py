"""What a user may give to ``Lens.step``."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradlens.recording.schema import STORED

#: Columns that the lens fills itself.
_OWN = {column.name for column in STORED["steps"]} - {"loss", "lr"}


def wrong(given: Mapping[str, Any]) -> dict[str, str]:
    """Return a sentence for every argument of ``step`` that is none; nothing is copied from a device."""
    found = {}
    for name, value in given.items():
        if name in _OWN:
            found[name] = f"step() fills {name} itself; give your number another name."
        elif isinstance(value, Tensor):
            if value.numel() != 1 or value.is_complex() or value.is_meta:
                shape = list(value.shape)
                found[name] = f"step({name}=...) takes one number; got a tensor {shape}. Reduce it, as with .mean()."
        elif value is not None and not isinstance(value, float | int):
            try:
                float(value)
            except Exception:
                found[name] = f"step({name}=...) takes one number; got a {type(value).__name__}."
    return found
