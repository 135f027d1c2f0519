"""What is written of a step that is over: its rows of all tables and, last, that of ``steps``."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import nan
from typing import Any

from torch import Tensor

from gradlens.lens.cadence import Cadence
from gradlens.lens.compiling import Added, GraphSums, take_traced
from gradlens.lens.hook_state import HookState
from gradlens.lens.loss_scale import LossScale
from gradlens.lens.output_rows import OutputRows
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.passes import Counted
from gradlens.lens.sinks import Sink
from gradlens.lens.step_tables import step_tables
from gradlens.lens.steps_row import fill, grad_norm, steps_row
from gradlens.lens.taps.tap import Tap


class StepWriter:
    """Writes recorded steps to a sink, and tells the audit and the cadence what they show.

    Args:
        sink: where rows go.
        state: shared with all hooks.
        parameters: None where parameters are not watched.
        outputs: of what goes into the model and comes out.
        cadence: which steps are recorded.
        scaling: watches the scaler.
    """

    def __init__(
        self,
        sink: Sink,
        state: HookState,
        parameters: ParameterReader | None,
        outputs: OutputRows,
        cadence: Cadence,
        scaling: LossScale,
    ) -> None:
        self._sink, self._state, self._parameters, self._outputs = sink, state, parameters, outputs
        self._cadence, self._scaling, self._observed = cadence, scaling, state.observed
        #: Called when there is something new for the audit to say.
        self.on_news: Callable[[], None] = lambda: None
        #: The last step that was written.
        self.written = -1
        #: The row of ``steps`` of the step that is over, which ``add`` may still fill.
        self._open: dict[str, Any] | None = None

    def add(
        self, step: int, loss: Tensor | float | None, lr: float | None, scalars: Mapping[str, Tensor | float]
    ) -> dict[str, Any] | None:
        """Add to the step that is over what only the training loop knows, and write its row.

        Returns:
            The row; None where the step was not recorded, and there is nothing to keep.
        """
        # A number is copied to the host only where there is a row for it.
        if self._open is None and scalars:
            self._open = steps_row(step)  # an evaluation's result, say: nobody measures it again
        row = self._open
        if row is not None:
            fill(row, loss, lr, scalars)
            self.write_open()
        return row

    def write_open(self) -> None:
        """Write the row of ``steps``, last: a step counts as recorded when it is there."""
        row, self._open = self._open, None
        if row is not None:
            began = time.perf_counter()
            self._sink.append("steps", row)
            self.written = max(self.written, row["step"][0])
            self._cadence.also(time.perf_counter() - began)

    def read_late(self, when: str) -> None:
        """Read gradients whose end of backward was not seen, and say so."""
        if self._parameters is not None and self._parameters.any_gradient():
            self._parameters.read(self._state.closely)
            self._observed.notes.add(
                "No backward pass was seen that filled the parameter gradients (the root module's forward did not run, "
                "it returns no tensor that was used, or the gradients were set by hand, as with torch.autograd.grad): "
                f"they were read {when}, after clipping if there was any."
            )

    def write(
        self, step: int, taps: Sequence[Tap], lr: float, clock: float, added: Sequence[Added], backward_ended: bool
    ) -> None:
        """Write all rows of a step but that of ``steps``, which is left open.

        Args:
            step: its number.
            taps: all, those of functions among them.
            lr: its learning rate; NaN where nobody knows it.
            clock: when it began.
            added: what compiled graphs have added in it.
            backward_ended: whether a backward pass was seen to end.
        """
        news, reader = self._observed.news(), self._parameters
        counted = self._state.passes.close()
        if reader is not None and not reader.was_read:
            self.read_late("in step()")
        self._note(backward_ended)
        scale = self._scaling.factor()
        # What compiled graphs added since the last pass ended, no pass came back for.
        ran = in_graphs(taps)
        rest = [take_traced(ran, -1)] if ran else []
        added = [*added, *(rest if not counted.seen else [])]
        unused = self._unused(counted)
        tables, shown = step_tables(step, list(taps), reader, scale, counted, added)
        if outputs := self._outputs.of_step(step, counted, scale):
            tables["outputs"] = outputs
        attention = self._state.attention
        if attention is not None and (looks := attention.of_step(step, counted)):
            tables["attention"] = looks
        self._open = steps_row(
            step,
            lr=lr,
            grad_norm=grad_norm(tables.get("params"), reader),
            clip_coef=nan if reader is None else reader.clip_coef * self._scaling.while_clipping(scale),
            loss_scale=scale if self._scaling.scaler is not None else nan,
            seconds=time.perf_counter() - clock,
            reason=self._cadence.reason(step),
        )
        for table, columns in tables.items():
            self._sink.append(table, columns)
        world = self._state.world
        process = str(world.rank) if world.size > 1 else ""
        self._observed.step(step, process, tables.get("norms"), shown)
        self._observed.passes(step, counted, unused, shown)
        for tap in taps:
            tap.new_call()
        if self._observed.news() != news:
            self.on_news()
        self._scaling.forget()
        self._cadence.shown(step, self._open, shown)

    def _note(self, backward_ended: bool) -> None:
        """Note what changes the meaning of this step's numbers, before they are read."""
        if self._parameters is not None:
            self._observed.notes.update(self._parameters.lacks(backward_ended))
        if any(buffer.stale for buffer in self._state.buffers.values()):
            self._observed.notes.add(
                "Gradients came back through a forward pass of an earlier step: they are left out of norms. Count the "
                "passes as one step."
            )

    def _unused(self, counted: Counted) -> int:
        """Count the forward passes that no backward pass came back to, and that are left out."""
        forwards = {forward for buffer in self._state.buffers.values() for forward in buffer.forwards()}
        return sum(not forward.returned and not counted.counts(forward) for forward in forwards)


def in_graphs(taps: Iterable[Tap]) -> list[GraphSums]:
    """Return what compiled graphs add up for these taps."""
    return [tap.traced for tap in taps if tap.traced.in_graph]
