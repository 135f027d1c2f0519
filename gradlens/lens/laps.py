"""How long steps take: by the clock of the host, or by an accelerator's own, for which nobody waits."""

import time
from collections import deque
from typing import Any, NamedTuple, Protocol

import torch


class Lap(NamedTuple):
    """One step.

    Attributes:
        recorded: whether it was.
        closely: whether what costs more was read, too.
        seconds: how long it took, with what was written of it.
    """

    recorded: bool
    closely: bool
    seconds: float


class Laps(Protocol):
    """Times steps, each from the end of the one before."""

    def restart(self) -> None:
        """Begin a step anew: what was since the last one ended belongs to none."""

    def lap(self, recorded: bool, closely: bool) -> list[Lap]:
        """End a step; return those, in order, whose time is known by now and was not before."""

    def also(self, seconds: float) -> None:
        """Count seconds that passed now to the step that has ended, not to the one that has begun."""


class HostLaps:
    """By the clock of the host."""

    def __init__(self) -> None:
        self._ended: Lap | None = None
        self._last = time.perf_counter()

    def restart(self) -> None:
        """Begin a step anew."""
        self._last = time.perf_counter()

    def lap(self, recorded: bool, closely: bool) -> list[Lap]:
        """End a step; return the one before it, to which nothing is added any more."""
        now = time.perf_counter()
        known = [] if self._ended is None else [self._ended]
        self._ended, self._last = Lap(recorded, closely, now - self._last), now
        return known

    def also(self, seconds: float) -> None:
        """Count seconds to the step that has ended."""
        if self._ended is not None:
            self._ended = self._ended._replace(seconds=self._ended.seconds + seconds)
            self._last += seconds


class DeviceLaps:
    """By events on an accelerator, which are looked at in a later step, when they have come.

    Between two of them is all that the device did, and all that it waited for the host.

    Args:
        device: on which the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._module = device, torch.get_device_module(device)
        self._waiting: deque[tuple[Any, Any, bool, bool]] = deque()
        self._last = self._event()

    def _event(self) -> Any:
        event = self._module.Event(enable_timing=True)
        event.record(self._module.current_stream(self._device))
        return event

    def restart(self) -> None:
        """Begin a step anew."""
        self._last = self._event()

    def lap(self, recorded: bool, closely: bool) -> list[Lap]:
        """End a step; return those that the device has come to the end of."""
        now = self._event()
        self._waiting.append((self._last, now, recorded, closely))
        self._last, known = now, []
        while self._waiting and self._waiting[0][1].query():
            begun, ended, was_recorded, was_closely = self._waiting.popleft()
            known.append(Lap(was_recorded, was_closely, begun.elapsed_time(ended) / 1e3))
        return known

    def also(self, seconds: float) -> None:
        """Do nothing: the device has its own time."""


def laps_on(device: torch.device) -> Laps:
    """Return what times steps on a device."""
    # Of all accelerators these two have events and streams that are used alike.
    return DeviceLaps(device) if device.type in ("cuda", "xpu") else HostLaps()
