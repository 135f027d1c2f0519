"""Which steps are recorded: each n-th, or as many as a share of the time allows, and those that follow an event."""

from collections import deque
from collections.abc import Mapping, Sequence
from math import ceil
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

from gradlens.lens.events import REASONS, Events
from gradlens.lens.laps import Lap, Laps, laps_on
from gradlens.lens.observations import Shown
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.world import World

#: Samples of parameters and outputs are read in each of the first recorded steps, and then in one of so many: they cost
#: as much as all else, and move slowly. An automatic cadence records as many first steps, all of them.
FIRST, OF = 32, 4
#: Steps that are recorded in full after an event.
_FOLLOWING = 8
#: Times that count: of bare steps, to which a recorded one is held, and of recorded steps of either kind.
_BARE, _RECORDED = 16, 15
#: The fewest of both to go by.
_FEWEST = 4
#: Where a budget allows for every step, one is left out all the same after so many, or nobody would know what it costs.
_IN_A_ROW = 15
#: The fewest steps that are recorded: one in so many.
_RAREST = 1000
#: Events that a restless series shows again and again.
_NOISY = ("loss", "grad_norm")
#: Several processes must record the same steps, and no two measure the same time.
OF_SEVERAL = 16


class Cadence:
    """Records each n-th step.

    Args:
        every: n.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.recorded = 0

    def begin(self, step: int) -> None:
        """Begin at a step, first or after a jump."""

    def due(self, step: int) -> bool:
        """Whether the step that begins is recorded."""
        return step % self.every == 0

    def closely(self, step: int) -> bool:
        """Whether what costs more is read in it, too."""
        return self.recorded < FIRST or self.recorded % OF == 0

    def reason(self, step: int) -> str | None:
        """Return the reason to record a step that is none of the cadence's; None where there is none."""
        return None

    def also(self, seconds: float) -> None:
        """Count seconds that passed now to the step that has ended."""

    def over(self, step: int, recorded: bool, closely: bool, parameters: ParameterReader | None) -> None:
        """End a step."""
        self.recorded += recorded

    def loss(self, step: int, loss: Tensor | float | None) -> None:
        """Hear the loss of a step."""

    def rate(self, step: int, lr: float) -> None:
        """Hear the learning rate of a step."""

    def skipped(self, step: int) -> None:
        """Hear that a scaler left a step out."""

    def shown(self, step: int, row: Mapping[str, Any], shown: Shown) -> None:
        """Hear what a recorded step has shown."""

    def told(self) -> str:
        """Say what it came to; nothing where that was asked for."""
        return ""


class Following(Cadence):
    """Records each n-th step, and knows which of them follow an event: where a recording is thinned these stay.

    Args:
        every: n.
    """

    def __init__(self, every: int) -> None:
        super().__init__(every)
        self._events = Events()
        #: Reason to the steps that were followed for it.
        self._followed: dict[str, list[int]] = {}
        #: Whether a loss came that nobody can look at without waiting.
        self._unseen = False
        self._until, self._why = -1, ""
        #: Steps that follow an event.
        self._following = _FOLLOWING * every

    def begin(self, step: int) -> None:
        """Begin at a step."""
        self._until = -1

    def reason(self, step: int) -> str | None:
        """Return the event that a step follows; None where it follows none."""
        return self._why if step <= self._until else None

    def _follow(self, step: int, reason: str) -> None:
        """Follow what comes after a step, where there is a reason."""
        if reason and self._can_follow(step, reason):
            self._until, self._why = step + self._following, reason
            self._followed.setdefault(reason, []).append(step)

    def _can_follow(self, step: int, reason: str) -> bool:
        return True

    def loss(self, step: int, loss: Tensor | float | None) -> None:
        """Hear the loss of a step; one on an accelerator is not looked at."""
        if isinstance(loss, Tensor):
            self._unseen = self._unseen or loss.device.type != "cpu"
            loss = loss.item() if loss.device.type == "cpu" else None
        if loss is not None:
            self._follow(step, self._events.loss(float(loss)))

    def rate(self, step: int, lr: float) -> None:
        """Hear the learning rate of a step."""
        self._follow(step, self._events.rate(lr))

    def skipped(self, step: int) -> None:
        """Hear that a scaler left a step out."""
        self._follow(step, "skipped")

    def shown(self, step: int, row: Mapping[str, Any], shown: Shown) -> None:
        """Hear what a recorded step has shown."""
        norm, scale = row["grad_norm"][0], row["loss_scale"][0]
        self._follow(step, self._events.recorded(norm, shown.broken is None, scale))

    def over(self, step: int, recorded: bool, closely: bool, parameters: ParameterReader | None) -> None:
        """End a step."""
        super().over(step, recorded, closely, parameters)
        if parameters is not None:
            self._follow(step, self._events.trained([p.requires_grad for p in parameters.parameters]))


class Budget(Following):
    """Records the first steps, then as many as a share of the time allows, and all that follow an event.

    What follows an event is paid for by recording less afterwards.

    What a recorded step costs is measured against the bare steps just before it; medians, so that a step that waited
    for data, wrote a checkpoint or was compiled does not count.

    Args:
        cost: seconds that recording may take, for each second of bare training.
        laps: times the steps.
    """

    def __init__(self, cost: float, laps: Laps) -> None:
        super().__init__(every=2)  # until it is known what a step costs: bare and recorded ones in turn
        self._cost, self._laps, self._following = cost, laps, _FOLLOWING
        #: What may be spent now, in bare steps: each step brings its share, a recorded one takes what it costs.
        self._account = 0.0
        self._first = self._steps = self._row = 0
        self._bare: deque[float] = deque(maxlen=_BARE)
        #: Of recorded steps, by whether they were read closely: how much longer they took, in bare steps.
        self._longer: dict[bool, deque[float]] = {kind: deque(maxlen=_RECORDED) for kind in (False, True)}
        #: What one costs, in bare steps, by the same; what they cost in the mean; whether that was measured.
        self._of = {False: 0.0, True: 0.0}
        self._of_one, self._known = 0.0, False

    def begin(self, step: int) -> None:
        """Begin at a step: the first ones from there are recorded."""
        super().begin(step)
        self._first, self._row = step, 0
        self._laps.restart()

    def due(self, step: int) -> bool:
        """Whether the step that begins is recorded."""
        if step < self._first + FIRST or step <= self._until:
            return True
        if not self._known:
            return self._row == 0
        return self._account >= self._of_one and self._row < _IN_A_ROW

    def closely(self, step: int) -> bool:
        """Whether what costs more is read in it, too."""
        return step <= self._until or super().closely(step)

    def _can_follow(self, step: int, reason: str) -> bool:
        # A restless series must not cost more than one that is not: its debts are paid first.
        paid = self._known and self._account >= -_FOLLOWING * self._of_one
        return reason not in _NOISY or paid or step < self._first + FIRST

    def also(self, seconds: float) -> None:
        """Count seconds that passed now to the step that has ended."""
        self._laps.also(seconds)

    def over(self, step: int, recorded: bool, closely: bool, parameters: ParameterReader | None) -> None:
        """End a step."""
        super().over(step, recorded, closely, parameters)
        self._steps += 1
        self._row = self._row + 1 if recorded else 0
        if self._known and step >= self._first + FIRST:
            spent = self._of[closely] if recorded else 0.0
            # No more is saved up than one step takes, or a quiet time would end in a burst.
            self._account = min(self._account + self._cost - spent, max(self._of_one, self._cost))
        for lap in self._laps.lap(recorded, closely):
            self._enter(lap)

    def _enter(self, lap: Lap) -> None:
        if not lap.recorded:
            self._bare.append(lap.seconds)
        elif len(self._bare) >= _FEWEST:
            self._longer[lap.closely].append(lap.seconds / median(self._bare) - 1)
            self._weigh()

    def _weigh(self) -> None:
        """Work out what a recorded step costs, and how many may be recorded."""
        known = {kind: max(median(longer), 0.0) for kind, longer in self._longer.items() if longer}
        # Never so much that none would be recorded any more.
        self._of = {kind: min(known.get(kind, known.get(not kind, 0.0)), _RAREST * self._cost) for kind in self._of}
        self._of_one = ((OF - 1) * self._of[False] + self._of[True]) / OF
        self._known = len(self._longer[False]) >= _FEWEST
        self.every = min(max(ceil(self._of_one / self._cost), 1), _RAREST)

    def told(self) -> str:
        """Say what it came to."""
        said = f"{self.recorded:,} of {self._steps:,} steps were recorded"
        if self._known:
            share = self._of_one / self.every
            said += f", at last 1 step in {self.every}: {share:.1%} of the time".replace("%", " %")
        if self._followed:
            said += f"; in full after {_several(self._followed)}"
        if self._unseen:
            said += ". The loss lies on an accelerator, and is looked at in recorded steps only"
        return said + "."


def _several(followed: Mapping[str, Sequence[int]]) -> str:
    """Name the reasons, in order of their first steps."""
    parts = [
        f"{REASONS[reason]} (step {steps[0]}" + (f", and {len(steps) - 1} times more)" if len(steps) > 1 else ")")
        for reason, steps in followed.items()
    ]
    return ", ".join(parts)


def cadence_of(
    every: int | Literal["auto"], cost: float, device: torch.device, world: World, *, thinned: bool = False
) -> Cadence:
    """Return the cadence that is asked for, of a recording that is thinned or not."""
    if every != "auto":
        # Of several processes no two see the same events, and all must thin the same steps.
        return Following(every) if thinned and world.size == 1 else Cadence(every)
    return Budget(cost, laps_on(device)) if world.size == 1 else Cadence(OF_SEVERAL)
