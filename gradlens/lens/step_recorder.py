"""Where a step begins and ends, and what is written then: what the hooks and the optimizer call."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor

from gradlens.lens.cadence import Cadence
from gradlens.lens.compiling import Added, GraphSums, take_traced
from gradlens.lens.hook_state import HookState
from gradlens.lens.loss_scale import LossScale
from gradlens.lens.output_rows import OutputRows
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.passes import Counted, Pass
from gradlens.lens.sinks import Sink
from gradlens.lens.step_tables import step_tables
from gradlens.lens.steps_row import fill, grad_norm, steps_row
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
        self._observed = state.observed
        #: Called when there is something new for the audit to say.
        self.on_news: Callable[[], None] = lambda: None
        #: Whether the optimizer closed the step that is over, and ``add`` has not been called for it.
        self.closed_by_optimizer = False
        #: The step, and the last that this lens has written.
        self._step, self._written = 0, -1
        self._backward_ended = False
        #: The row of ``steps`` of the step that is over, which ``add`` may still fill.
        self._open: dict[str, Any] | None = None
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
        if step <= self._written:
            self._sink.begin_attempt(step)
            self._written = step - 1
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
        self.write_open()
        self.closed_by_optimizer = False
        if self._state.recording:
            self._write()
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
        # A number is copied to the host only where there is a row for it.
        if self._open is None and scalars:
            self._open = steps_row(self._step - 1)  # an evaluation's result, say: nobody measures it again
        row = self._open
        if row is not None:
            fill(row, loss, lr, scalars)
            self.write_open()
        self._cadence.loss(self._step - 1, loss if row is None or loss is None else row["loss"][0])
        if lr is not None and self._optimizer is None:
            self._cadence.rate(self._step - 1, float(lr))
        if not self._begun:
            self._look()

    def write_open(self) -> None:
        """Write the row of ``steps``, last: a step counts as recorded when it is there."""
        row, self._open = self._open, None
        if row is not None:
            began = time.perf_counter()
            self._sink.append("steps", row)
            self._written = max(self._written, row["step"][0])
            self._cadence.also(time.perf_counter() - began)

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
        ran = self._in_graphs()
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
                self._read_late("before the optimizer")

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

    # ------------------------------------------------------------------ writing

    def taps(self) -> list[Tap]:
        """Return all taps, those of functions among them."""
        return [*self._module_taps, *self._functions.taps()]

    def _in_graphs(self) -> list[GraphSums]:
        return [tap.traced for tap in self._module_taps if tap.traced.in_graph]

    def _read_late(self, when: str) -> None:
        """Read gradients whose end of backward was not seen, and say so."""
        if self._parameters is not None and self._parameters.any_gradient():
            self._parameters.read(self._state.closely)
            self._observed.notes.add(
                "No backward pass was seen that filled the parameter gradients (the root module's forward did not run, "
                "it returns no tensor that was used, or the gradients were set by hand, as with torch.autograd.grad): "
                f"they were read {when}, after clipping if there was any."
            )

    def _write(self) -> None:
        news, reader = self._observed.news(), self._parameters
        counted = self._state.passes.close()
        if reader is not None and not reader.was_read:
            self._read_late("in step()")
        self._note()
        scale = self._scaling.factor()
        # What compiled graphs added since the last pass ended, no pass came back for.
        ran = self._in_graphs()
        rest = [take_traced(ran, -1)] if ran else []
        added = self._added + (rest if not counted.seen else [])
        unused = self._unused(counted)
        tables, shown = step_tables(self._step, self.taps(), reader, scale, counted, added)
        if outputs := self._outputs.of_step(self._step, counted, scale):
            tables["outputs"] = outputs
        attention = self._state.attention
        if attention is not None and (looks := attention.of_step(self._step, counted)):
            tables["attention"] = looks
        self._open = steps_row(
            self._step,
            lr=self._lr,
            grad_norm=grad_norm(tables.get("params"), reader),
            clip_coef=nan if reader is None else reader.clip_coef * self._scaling.while_clipping(scale),
            loss_scale=scale if self._scaling.scaler is not None else nan,
            seconds=time.perf_counter() - self._clock,
            reason=self._cadence.reason(self._step),
        )
        for table, columns in tables.items():
            self._sink.append(table, columns)
        world = self._state.world
        process = str(world.rank) if world.size > 1 else ""
        self._observed.step(self._step, process, tables.get("norms"), shown)
        self._observed.passes(self._step, counted, unused, shown)
        for tap in self.taps():
            tap.new_call()
        if self._observed.news() != news:
            self.on_news()
        self._scaling.forget()
        self._cadence.shown(self._step, self._open, shown)

    def _note(self) -> None:
        """Note what changes the meaning of this step's numbers, before they are read."""
        if self._parameters is not None:
            self._observed.notes.update(self._parameters.lacks(self._backward_ended))
        if any(buffer.stale for buffer in self._state.buffers.values()):
            self._observed.notes.add(
                "Gradients came back through a forward pass of an earlier step: they are left out of norms. Count the "
                "passes as one step."
            )

    def _unused(self, counted: Counted) -> int:
        """Count the forward passes that no backward pass came back to, and that are left out."""
        forwards = {forward for buffer in self._state.buffers.values() for forward in buffer.forwards()}
        return sum(not forward.returned and not counted.counts(forward) for forward in forwards)


def _closure(args: Any, kwargs: Any) -> bool:
    """Whether optimizer.step was called with a closure."""
    return any(callable(value) for value in (*args, *kwargs.values()))
