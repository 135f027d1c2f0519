"""A reading: one number of one probe, its interval, what it cost, and when it misleads."""

from dataclasses import dataclass
from math import nan
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One number of one probe.

    Attributes:
        probe: the probe's name.
        name: the number's name.
        value: the number.
        low: lower end of its interval; NaN where there is none.
        high: upper end.
        unit: of value, low and high.
        site: module path; empty for the whole model.
        forward: forward passes it took.
        backward: backward passes it took; a Hessian-vector product takes two.
        misleads: one sentence on when it misleads.
        doubt: what a check of it found against it; empty where it holds. Value and interval are then not to be trusted.
        notes: what was done to the model or left out.
    """

    probe: str
    name: str
    value: float
    low: float = nan
    high: float = nan
    unit: str = ""
    site: str = ""
    forward: int = 0
    backward: int = 0
    misleads: str = ""
    doubt: str = ""
    notes: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """Return the columns of the recording's ``probes`` table, without ``step``."""
        return {name: getattr(self, name) for name in ("probe", "site", "name", "value", "low", "high", "unit")}
