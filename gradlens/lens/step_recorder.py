"""Where a step begins and ends: what the hooks and the optimizer call."""

import time
from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor

from gradlens.lens.cadence import Cadence
from gradlens.lens.compiling import Added, take_traced
from gradlens.lens.hook_state import HookState
from gradlens.lens.loss_scale import LossScale
from gradlens.lens.output_rows import OutputRows
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.passes import Pass
from gradlens.lens.sinks import Sink
from gradlens.lens.step_writer import StepWriter, in_graphs
from gradlens.lens.taps.functional import Watcher
from gradlens.lens.taps.tap import Tap


class StepRecorder:
    """Counts steps, and writes those that are recorded.

    Args:
        sink: where rows go.
        state: shared with all hooks.
        taps: of the modules.
        functions: normalizations that run as functions.
        parameters: None where parameters are not watched.
        outputs: of what goes into the model and comes out.
        cadence: which steps are recorded.
        scaler: a ``GradScaler`` or None.
        optimizer: the one that closes steps; None where ``close`` is called. A step that the scaler left out is counted
            here, then.
    """

    def __init__(
        self,
        sink: Sink,
        state: HookState,
        taps: Sequence[Tap],
        functions: Watcher,
        parameters: ParameterReader | None,
        outputs: OutputRows,
        *,
        cadence: Cadence,
        scaler: Any,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        self._sink, self._state, self._functions, self._parameters = sink, state, functions, parameters
        self._outputs = outputs
        self._module_taps, self._cadence = list(taps), cadence
        self._optimizer, self._scaling = optimizer, LossScale(scaler, optimizer)
        self.writer = StepWriter(sink, state, parameters, outputs, cadence, self._scaling)
        #: Whether the optimizer closed the step that is over, and ``add`` has not been called for it.
        self.closed_by_optimizer = False
        self._step = 0
        self._backward_ended = False
        #: Whether a forward pass of the step has begun: what is recorded of it is decided.
        self._begun = False
        self._lr = nan
        self._clock = time.perf_counter()
        #: What compiled graphs have added in the step.
        self._added: list[Added] = []
        guarded = state.guard.around
        state.on_forward, state.on_failure = guarded(self._forward), guarded(self._forward_failed)
        state.on_backward_end = guarded(self._backward_end)
        state.passes.on_replaced = guarded(self._replaced)
        self.before_optimizer, self.after_optimizer = guarded(self._before_optimizer), guarded(self._after_optimizer)

    @property
    def recorded(self) -> int:
        """How many steps were recorded."""
        return self._cadence.recorded

    def watch(self, taps: Iterable[Tap]) -> None:
        """Record more taps."""
        self._module_taps += taps

    def start_at(self, step: int) -> None:
        """Give the next step this number."""
        self._cadence.begin(step)
        self._next(step)

    def _next(self, step: int) -> None:
        self._step = self._state.step = step
        self._begun = False
        self._look()

    def go_on_at(self, step: int) -> None:
        """Give the next step this number; where it was recorded already, rows from it on are replaced."""
        if step <= self.writer.written:
            self._sink.begin_attempt(step)
            self.writer.written = step - 1
        self.start_at(step)

    def pause(self, paused: bool) -> None:
        """Look away, or back."""
        self._state.paused = paused
        self._look()

    def _look(self) -> None:
        self._state.recording = self._cadence.due(self._step) and not self._state.paused
        self._state.closely = self._cadence.closely(self._step)

    def _another_rate(self) -> bool:
        """Whether the learning rate is twice or half of what it was in the last step: what a step changes is news."""
        rate = nan if self._optimizer is None else float(self._optimizer.param_groups[0]["lr"])
        return rate >= 2 * self._lr or rate <= self._lr / 2

    def close(self) -> None:
        """Write what was recorded in the current step, but for its row of ``steps``, and begin the next."""
        self.writer.write_open()
        self.closed_by_optimizer = False
        if self._state.recording:
            self.writer.write(self._step, self.taps(), self._lr, self._clock, self._added, self._backward_ended)
        else:
            self._state.passes.close()
            self._outputs.tap.forget()
            if self._state.attention is not None:
                self._state.attention.forget()
        self._backward_ended, self._added = False, []
        self._cadence.over(self._step, self._state.recording, self._state.closely, self._parameters)
        self._next(self._step + 1)
        self._clock = time.perf_counter()

    def add(self, loss: Tensor | float | None, lr: float | None, scalars: Mapping[str, Tensor | float]) -> None:
        """Add to the step that is over what only the training loop knows, and write its row."""
        row = self.writer.add(self._step - 1, loss, lr, scalars)
        self._cadence.loss(self._step - 1, loss if row is None or loss is None else row["loss"][0])
        if lr is not None and self._optimizer is None:
            self._cadence.rate(self._step - 1, float(lr))
        if not self._begun:
            self._look()

    # ------------------------------------------------------------------ what the hooks call

    def _forward(self) -> None:
        if self._begun and self._scaling.skipped():
            self._cadence.skipped(self._step)
            self.close()
        if not self._begun:
            self._begun = True
            self._scaling.begin()
        if self._state.recording:
            self._functions.begin()
            if self._state.attention is not None:
                self._state.attention.begin()
            if self._backward_ended:
                self._backward_ended = False
                for tap in self.taps():
                    tap.new_call()

    def _forward_failed(self) -> None:
        self._state.forward.failed = True
        for tap in self.taps():
            tap.forward_failed()

    def _replaced(self) -> None:
        if self._parameters is not None:
            self._parameters.look_again()

    def _backward_end(self, one: Pass, filled: bool) -> None:
        for buffer in self._state.buffers.values():
            buffer.drain_pass(one)
        ran = in_graphs(self._module_taps)
        if ran:
            self._added.append(take_traced(ran, one.number))
        if one.paused:
            return
        self._backward_ended = True
        self._functions.end()
        if self._state.attention is not None:
            self._state.attention.end()
        if self._parameters is not None and self._state.recording and filled:
            self._state.closely = self._state.closely or self._another_rate()
            self._parameters.read(self._state.closely)
        self._scaling.backward_ended()

    def _before_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Read what is known only now: the learning rate, the gradients after clipping."""
        if self._state.paused:
            return
        self._lr = float(optimizer.param_groups[0]["lr"])
        self._scaling.steps(optimizer)
        self._cadence.rate(self._step, self._lr)
        if self._state.recording and self._parameters is not None and not _closure(args, kwargs):
            if self._parameters.was_read:
                self._parameters.reread()
            else:
                self.writer.read_late("before the optimizer")

    def _after_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Close the step."""
        if self._state.paused:
            return
        if self._state.recording and self._parameters is not None and _closure(args, kwargs):
            # The closure ran forward and backward, and clipped, inside of the optimizer's step.
            self._parameters.reread()
        self._scaling.stepped()
        self.close()
        self.closed_by_optimizer = True

    def taps(self) -> list[Tap]:
        """Return all taps, those of functions among them."""
        return [*self._module_taps, *self._functions.taps()]


def _closure(args: Any, kwargs: Any) -> bool:
    """Whether optimizer.step was called with a closure."""
    return any(callable(value) for value in (*args, *kwargs.values()))
