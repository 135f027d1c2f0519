"""The ``Lens``: what the user holds while a model is watched."""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from gradlens.errors import GradlensError, RecordingError
from gradlens.lens import compiling
from gradlens.lens.audit import Audit
from gradlens.lens.auditing import audit_of
from gradlens.lens.cadence import cadence_of
from gradlens.lens.given import wrong
from gradlens.lens.guard import Guard, warn
from gradlens.lens.hook_state import HookState
from gradlens.lens.lens_hooks import LensHooks, weakly
from gradlens.lens.observations import Observations
from gradlens.lens.output_rows import OutputRows
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.passes import Passes
from gradlens.lens.placing import Placing
from gradlens.lens.sinks import Sink
from gradlens.lens.site_table import SiteTable
from gradlens.lens.sites import discover
from gradlens.lens.step_recorder import StepRecorder
from gradlens.lens.taps import NormTap, RootTap, taps_of
from gradlens.lens.taps import functional as functional_norms
from gradlens.lens.taps.attention import AttentionTap
from gradlens.lens.world import World
from gradlens.recording import Recording

#: Whoever restores the model says where it goes on (``start_at``); else nobody knows that it was restored.
_GOES_ON = (
    "The recording goes on at step {}, where an earlier attempt ended: its steps are one training only if model and "
    "optimizer are as they were then. Say so with lens.start_at, or record a new training in a folder of its own."
)


class Lens:
    """Watches a model while it trains. A context manager; ``detach`` (or leaving the block) removes every hook.

    Made by ``gradlens.attach``. Short-lived: what is kept is its ``recording``.
    """

    def __init__(
        self,
        model: nn.Module,
        sink: Sink,
        *,
        every: int | Literal["auto"],
        watch: Sequence[str],
        optimizer: torch.optim.Optimizer | None = None,
        scaler: Any = None,
        functional: bool = False,
        strict: bool = False,
        world: World | None = None,
        step: int = 0,
        placement: Mapping[str, str] | None = None,
        cost: float = 0.02,
        thinned: bool = False,
    ) -> None:
        # First of all: what torch.compile wraps a model in would stand before every name.
        model = compiling.unwrapped(model)
        self._sink = sink
        self._status: str | None = None
        #: How it was detached, and why the recording stopped before; empty while all goes on.
        self._closed = self._stopped = ""
        self._stepped = False
        self._guard = Guard(strict)
        device, world = _device(model), world or World()
        cadence = cadence_of(every, cost, device, world, thinned=thinned)
        dropped = compiling.forget_graphs()
        observed = Observations(cadence=cadence, loss_scale=scaler is not None, graphs_dropped=dropped)
        placing = Placing(model, observed, self._guard)
        self._state = state = HookState(world, device, Passes(model), placing, observed, self._guard)
        if "attention" in watch:
            state.attention = AttentionTap(model, state)
        self._parameters: ParameterReader | None = None
        if {"params", "updates"} & set(watch):
            self._parameters = ParameterReader(model, state.world, "updates" in watch, optimizer)
        sites = discover(model, watch, placement)
        self._taps = [tap for site in sites for tap in taps_of(site, state)]
        self._functions = functional_norms.Watcher(model, state, record=functional)
        self._functions.know(self._taps)
        root = RootTap(state, model)
        self._recorder = StepRecorder(
            sink, state, self._taps, self._functions, self._parameters, OutputRows(root.ends),
            cadence=cadence, scaler=scaler, optimizer=optimizer,
        )  # fmt: skip
        self._hooks = LensHooks(state, self._functions)
        table = SiteTable(model, sink, state, self._recorder, self._hooks, "blocks" in watch)
        self._be_told(table)
        if sink.lasting:
            state.lens = self  # it writes on
        else:
            weakref.finalize(self, self._hooks.forget).atexit = False
        self._recorder.start_at(step)
        self._goes_on = _GOES_ON.format(step) if step else ""
        observed.notes.update(note for note in (self._goes_on, state.world.note) if note)
        try:
            self._hooks.on_model([root, *self._taps])
            if optimizer is not None:
                self._hooks.on_optimizer(optimizer, self._recorder.before_optimizer, self._recorder.after_optimizer)
            table.write(sites)
        except BaseException:
            self._hooks.leave()
            raise

    def _be_told(self, table: SiteTable) -> None:
        """Ask to be called; weakly: nothing on the model shall keep a lens whose recording nobody can ask for."""
        self._guard.on_end = weakly(self._step_aside)
        for norm in self._norm_taps():
            norm.on_found = table.add
        self._functions.new_site = table.add
        self._recorder.writer.on_news = weakly(self._write_audit)

    # ------------------------------------------------------------------ what the user calls

    def step(self, loss: Tensor | float | None = None, lr: float | None = None, **scalars: Tensor | float) -> None:
        """Close the current step: after the optimizer, once a training step.

        With ``optimizer=`` given to attach it need not be called; called all the same, it adds its numbers to the step
        that the optimizer just closed. When it returns, a recorded step is safe from a kill. While the lens is paused
        it does nothing.

        Args:
            loss: the step's loss.
            lr: learning rate; taken from the optimizer where attach has it.
            scalars: anything else worth a column in ``steps``. They are kept on a step that is not recorded, too.

        Raises:
            GradlensError: the lens is detached; or, in the first call (with ``strict`` in any), an argument is not one
                number, or a scalar has the name of a column that gradlens fills itself. Later such an argument is left
                out, and the audit says so.
            RecordingError: the run folder cannot be written, with ``strict``.
        """
        if self._closed:
            raise GradlensError(f"step() belongs inside the recording; this lens is {self._closed}. Attach a new one.")
        if self._state.paused:
            return
        refused = wrong({"loss": loss, "lr": lr} | scalars)
        if refused:
            if self._guard.strict or not self._stepped:
                raise GradlensError(" ".join(refused.values()))
            self._state.observed.notes.update(f"{why} Such values are left out." for why in refused.values())
            loss, lr = None if "loss" in refused else loss, None if "lr" in refused else lr
            scalars = {name: value for name, value in scalars.items() if name not in refused}
        self._stepped = True
        self._guard.around(self._step)(loss, lr, scalars)
        if self._guard.ended:
            self._hooks.leave()

    def _step(self, loss: Tensor | float | None, lr: float | None, scalars: Mapping[str, Tensor | float]) -> None:
        if not self._recorder.closed_by_optimizer:
            self._recorder.close()
        self._recorder.closed_by_optimizer = False
        self._recorder.add(loss, lr, scalars)

    def start_at(self, step: int) -> None:
        """Give the next step this number, as after a resume: rows from it on replace those recorded before."""
        self._guard.around(self._start_at)(step)

    def _start_at(self, step: int) -> None:
        self._recorder.writer.write_open()
        self._recorder.go_on_at(step)
        self._state.observed.notes.discard(self._goes_on)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Look away: what runs inside of the block, forward or backward, is in no row, and no step is counted."""
        before = self._state.paused
        self._recorder.pause(True)
        try:
            yield
        finally:
            self._recorder.pause(before)

    def annotate(self, **meta: Any) -> None:
        """Add metadata to the recording (JSON values)."""
        self._guard.around(self._sink.annotate)(meta)

    def finish(self, status: str) -> None:
        """Set the status the recording will close with: "complete", "diverged", or "interrupted"."""
        self._status = status

    @property
    def recorded(self) -> int:
        """How many steps were recorded so far."""
        return self._recorder.recorded

    @property
    def stopped(self) -> str:
        """Why nothing more is recorded, where something went wrong; empty otherwise."""
        return self._stopped

    @property
    def recording(self) -> Recording:
        """What was recorded so far.

        Raises:
            RecordingError: the run folder cannot be read any more.
        """
        self._guard.around(self._recorder.writer.write_open)()
        try:
            return self._sink.recording()
        except RecordingError as error:
            if self._guard.ended:
                raise RecordingError(f"{self._stopped} Nothing can be read now: {error}") from error
            raise

    @property
    def model_sites(self) -> list[str]:
        """Paths of the normalizations that are tapped."""
        return [tap.site.path for tap in self._norm_taps() if tap.is_norm]

    def _norm_taps(self) -> list[NormTap]:
        return [tap for tap in self._taps if isinstance(tap, NormTap)]

    def audit(self) -> Audit:
        """Say what was seen and what was missed; meaningful after the first recorded step."""
        return audit_of(self._state, self._taps, self._functions, self._parameters)

    def __repr__(self) -> str:
        return f"Lens({self.audit().in_short()}{f'; {self._closed}' if self._closed else ''})"

    def _repr_html_(self) -> str:
        return self.audit()._repr_html_()

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """In a copy of what holds it (a module, a checkpoint) its place is empty: it watches one model, one folder."""
        return type(None), ()

    def detach(self) -> None:
        """Remove every hook and close the recording. Calling it again does nothing."""
        self._close("complete", "detached")

    def hand_over(self) -> bool:
        """Detach as interrupted, for another lens of this process goes on with the run folder.

        Returns:
            Whether it was attached.
        """
        attached = not self._closed
        self._close("interrupted", "detached: another one was attached with the same run folder")
        return attached

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._close("complete", "detached")
            return
        # That is the news, and nothing that is raised here takes its place.
        with suppress(Exception):
            self._close("interrupted", "detached")

    # ------------------------------------------------------------------ writing and closing

    def _write_audit(self) -> None:
        self._sink.annotate({"audit": self.audit().to_dict(), "structure": self._state.placing.structure})

    def _close(self, status: str, how: str) -> None:
        if self._closed:
            return
        self._closed = how
        self._hooks.leave()
        self._guard.around(self._finish)(self._status or status)

    def _finish(self, status: str) -> None:
        try:
            self._recorder.writer.write_open()
            self._write_audit()
        finally:
            self._sink.close(status)

    def _step_aside(self) -> None:
        """Stop recording for good, keep what there is, and let the training go on."""
        self._stopped = f"The recording stopped at step {self._state.step}: {self._guard.ended}"
        self._state.observed.notes.add(self._stopped)
        self._hooks.leave_model()
        warn(f"gradlens: {self._stopped} The training goes on without it.")
        for what in (self._write_audit, partial(self._sink.close, "interrupted")):
            with suppress(Exception):
                what()


def _device(model: nn.Module) -> torch.device:
    """Where the model is, by its first parameter or buffer."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
