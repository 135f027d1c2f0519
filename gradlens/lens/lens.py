"""The ``Lens``: which steps are recorded, where a step ends, and what is written then."""

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradlens.errors import GradlensError
from gradlens.lens import compiling, provenance
from gradlens.lens import functional as functional_norms
from gradlens.lens.audit import Audit
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.sinks import Sink
from gradlens.lens.sites import Site, discover
from gradlens.lens.step_rows import step_tables
from gradlens.lens.switch import Switch
from gradlens.lens.taps import NormTap, RootTap, Tap, taps_of
from gradlens.recording import Recording
from gradlens.recording.schema import STORED

_GRADIENT = "Parameter gradients: at the end of backward, after reductions, before clipping, loss scale divided out."
#: A share removed may be negative by rounding (half precision included), not by more.
_IMPOSSIBLE = 0.02
_OWN_COLUMNS = {column.name for column in STORED["steps"]}


class Lens:
    """Watches a model while it trains. A context manager; ``detach`` (or leaving the block) removes every hook.

    Made by ``gradlens.attach``. Short-lived: what is kept is its ``recording``.
    """

    def __init__(
        self,
        model: nn.Module,
        sink: Sink,
        *,
        every: int,
        watch: Sequence[str],
        optimizer: torch.optim.Optimizer | None = None,
        scaler: Any = None,
        functional: bool = False,
        rank: int = 0,
    ) -> None:
        # First of all: what torch.compile wraps a model in would stand before every name.
        model = compiling.unwrapped(model)
        self._sink, self._every, self._scaler, self._optimizer = sink, every, scaler, optimizer
        self._switch = Switch(rank, _device(model))
        self._step = 0
        self._recorded = 0
        self._status: str | None = None
        self._backward_ended = self._closed = False
        #: The row of ``steps`` that the optimizer closed and step() may still add to.
        self._open: dict[str, Any] | None = None
        self._closed_by_optimizer = False
        self._scale: Tensor | None = None
        self._lr = float("nan")
        self._unscales_itself = False
        self._clock = time.perf_counter()
        self._first_nonfinite = ""
        self._impossible: set[str] = set()
        self._notes: set[str] = set()
        self._scaler_states: Any = None
        self._parameters = ParameterReader(model, "updates" in watch) if {"params", "updates"} & set(watch) else None
        self._graphs_dropped = compiling.forget_graphs()
        sites, self._strangers = discover(model, watch)
        self._taps = [tap for site in sites for tap in taps_of(site, self._switch)]
        self._seen: dict[str, set[str]] = {"fired": set(), "grad_output": set(), "grad_input": set()}
        #: Of the first recorded step: calls of each norm, backward passes.
        self._calls: Counter[str] = Counter()
        self._backwards = 0
        self._switch.on_forward, self._switch.on_failure = self._on_forward, self._on_failure
        self._switch.on_backward, self._switch.on_backward_end = self._on_backward, self._on_backward_end
        self._handles: list[RemovableHandle] = RootTap(self._switch).handles(model)
        self._functions = functional_norms.Watcher(model, self._switch, record=functional)
        self._functions.know(self._taps)
        self._functions.new_site = lambda site: self._write_sites([site])
        try:
            for tap in self._taps:
                self._handles += tap.handles()
            self._functions.start()
            if optimizer is not None:
                self._handles.append(optimizer.register_step_pre_hook(self._before_optimizer))
                self._handles.append(optimizer.register_step_post_hook(self._after_optimizer))
            self._write_sites(sites)
        except BaseException:
            self._remove_hooks()
            raise

    # ------------------------------------------------------------------ what the user calls

    def step(self, loss: Tensor | float | None = None, lr: float | None = None, **scalars: Tensor | float) -> None:
        """Close the current step: after the optimizer, once a training step.

        With ``optimizer=`` given to attach it need not be called; called all the same, it adds its numbers to the step
        that the optimizer just closed. When it returns, a recorded step is safe from a kill.

        Args:
            loss: the step's loss.
            lr: learning rate; taken from the optimizer where attach has it.
            scalars: anything else worth a column in ``steps``. They are kept on a step that is not recorded, too.

        Raises:
            GradlensError: a scalar has the name of a column that gradlens fills itself.
            RecordingError: the run folder cannot be written.
        """
        if self._closed:
            raise GradlensError("step() belongs inside the recording; this lens is detached. Attach a new one.")
        taken = _OWN_COLUMNS & scalars.keys()
        if taken:
            raise GradlensError(f"step() fills {', '.join(sorted(taken))} itself; give your number another name.")
        if not self._closed_by_optimizer:
            self._close_step()
        self._closed_by_optimizer = False
        if self._open is None and scalars:
            self._open = _steps_row(self._step - 1)  # an evaluation's result, say: nobody measures it again
        if self._open is not None:
            self._open["loss"] = [_number(loss)]
            self._open["lr"] = self._open["lr"] if lr is None else [float(lr)]
            self._open["extra"] = [{key: _number(value) for key, value in scalars.items()}]
            self._write_open()

    def start_at(self, step: int) -> None:
        """Give the next step this number, as after a resume: rows from it on replace those of earlier attempts."""
        self._step = step
        self._switch.recording = step % self._every == 0

    def annotate(self, **meta: Any) -> None:
        """Add metadata to the recording (JSON values)."""
        self._sink.annotate(meta)

    def finish(self, status: str) -> None:
        """Set the status the recording will close with: "complete", "diverged", or "interrupted"."""
        self._status = status

    @property
    def recording(self) -> Recording:
        """What was recorded so far."""
        self._write_open()
        return self._sink.recording()

    @property
    def model_sites(self) -> list[str]:
        """Paths of the normalizations that are tapped."""
        return [tap.site.path for tap in self._taps if tap.site.norm is not None]

    def audit(self) -> Audit:
        """Say what was seen and what was missed; meaningful after the first recorded step."""
        norms = tuple(self.model_sites)
        fired = tuple(path for path in norms if path in self._seen["fired"])
        elsewhere = self._switch.without_graph | self._switch.transformed | self._functions.as_functions()
        return Audit(
            norms=norms,
            fired=fired,
            silent=tuple(path for path in norms if path not in self._seen["fired"] and path not in elsewhere),
            without_graph=tuple(path for path in norms if path in self._switch.without_graph),
            transformed=tuple(path for path in norms if path in self._switch.transformed),
            functions_recorded=self._functions.record,
            without_grad_output=tuple(path for path in fired if path not in self._seen["grad_output"]),
            without_grad_input=tuple(path for path in fired if path not in self._seen["grad_input"]),
            strangers=tuple(self._strangers),
            unsupported=dict(self._switch.unsupported),
            functional=self._functions.unseen(),
            impossible=tuple(path for path in norms if path in self._impossible),
            notes=tuple(sorted(self._notes)),
            tied=dict(self._parameters.tied) if self._parameters else {},
            nonfinite=self._first_nonfinite,
            steps=self._recorded,
            gradient=_GRADIENT,
            calls={
                "most": max(self._calls.values(), default=0),
                "sites": {site: calls for site, calls in self._calls.items() if calls != 1},
            },
            setting=self._setting(),
        )

    def _setting(self) -> dict[str, Any]:
        """What the numbers depend on besides the model, as far as it was seen."""
        taps = [tap for tap in self._taps if isinstance(tap, NormTap)]
        dtypes = Counter(str(tap.dtype).removeprefix("torch.") for tap in taps if tap.dtype is not None)
        return {
            "compiled": [tap.site.path for tap in taps if tap.traced.in_graph],
            "graphs_dropped": self._graphs_dropped,
            "checkpointed": [tap.site.path for tap in taps if tap.ran_again],
            "autocast": self._switch.autocast,
            "input_dtypes": dict(dtypes),
            "loss_scale": self._scaler is not None,
            "micro_batches": self._backwards,
            "every": self._every,
            "functional": self._functions.record,
            "world": torch.distributed.get_world_size() if provenance.distributed() else 1,
        }

    def detach(self) -> None:
        """Remove every hook and close the recording. Calling it again does nothing."""
        self._close("complete")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close("complete" if kind is None else "interrupted")

    # ------------------------------------------------------------------ what the hooks call

    def _on_forward(self) -> None:
        if self._scaler_skipped():
            self._close_step()
        if self._switch.recording:
            self._functions.begin()
            if self._backward_ended:
                # A further micro-batch: its calls add to the rows of the same calls before.
                self._backward_ended = False
                self._switch.drain()
                for tap in self._all_taps():
                    tap.new_call()

    def _scaler_skipped(self) -> bool:
        """Whether the scaler found an overflow and left the optimizer's step out: then this was a step all the same.

        ``update()`` gives the scaler a new record of its optimizers; to compare its factors would wait for the device.
        """
        now = getattr(self._scaler, "_per_optimizer_states", None)
        return self._optimizer is not None and self._backward_ended and now is not self._scaler_states

    def _on_failure(self) -> None:
        for tap in self._all_taps():
            tap.forward_failed()

    def _on_backward(self) -> None:
        if self._parameters is not None and self._switch.recording:
            self._parameters.backward_begins()

    def _on_backward_end(self) -> None:
        self._backward_ended = True
        if not self._recorded and self._switch.recording:
            self._backwards += 1
        self._functions.end()
        self._switch.drain()
        if self._parameters is not None and self._switch.recording and self._parameters.changed():
            self._parameters.read()
        self._scaler_states = getattr(self._scaler, "_per_optimizer_states", None)
        scale = getattr(self._scaler, "_scale", None)
        self._scale = scale.detach().clone() if isinstance(scale, Tensor) else None

    def _before_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._lr = float(optimizer.param_groups[0]["lr"])
        # GradScaler sets this for the time of the call, on fused optimizers.
        self._unscales_itself = getattr(optimizer, "grad_scale", None) is not None
        if self._switch.recording and self._parameters is not None and not _closure(args, kwargs):
            if self._parameters.was_read:
                self._parameters.reread()
            else:
                self._read_late("before the optimizer")

    def _after_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._switch.recording and self._parameters is not None and _closure(args, kwargs):
            # The closure ran forward and backward, and clipped, inside of the optimizer's step.
            self._parameters.reread()
        self._close_step()
        self._closed_by_optimizer = True

    # ------------------------------------------------------------------ writing and closing

    def _read_late(self, when: str) -> None:
        """Read gradients whose end of backward was not seen, and say so."""
        if self._parameters is not None and self._parameters.any_gradient():
            self._parameters.read()
            self._notes.add(
                "No backward pass was seen that filled the parameter gradients (the root module's forward did not run, "
                "it returns no tensor that was used, or the gradients were set by hand, as with torch.autograd.grad): "
                f"they were read {when}, after clipping if there was any."
            )

    def _write_sites(self, sites: list[Site]) -> None:
        rows = [site.row() for site in sites]
        if rows:
            self._sink.append("sites", {key: [row[key] for row in rows] for key in rows[0]})

    def _all_taps(self) -> list[Tap]:
        return [*self._taps, *self._functions.taps()]

    def _close_step(self) -> None:
        """Write what was recorded in the current step, but for its row of ``steps``, and begin the next."""
        self._write_open()
        self._closed_by_optimizer = False
        if self._switch.recording:
            self._write()
        self._step += 1
        self._backward_ended = self._switch.root_seen = False
        self._switch.recording = self._step % self._every == 0
        self._clock = time.perf_counter()

    def _write(self) -> None:
        notes = len(self._notes)
        if self._parameters is not None and not self._parameters.was_read:
            self._read_late("in step()")
        scale = float(self._scale) if self._scale is not None else 1.0
        tables = step_tables(self._step, self._all_taps(), self._parameters, scale)
        self._note_seen(tables)
        if any(buffer.stale for buffer in self._switch.buffers.values()):
            self._notes.add(
                "Gradients came back through a forward pass after a newer one had ended its backward: they are left "
                "out of norms. Run each backward before the next forward, or count the passes as one step."
            )
        self._open = _steps_row(
            self._step,
            lr=self._lr,
            grad_norm=_whole_norm(tables.get("params")),
            clip_coef=self._clip_coef(scale),
            loss_scale=scale if self._scaler is not None else float("nan"),
            seconds=time.perf_counter() - self._clock,
        )
        for table, columns in tables.items():
            self._sink.append(table, columns)
        for tap in self._all_taps():
            tap.new_call()
        self._recorded += 1
        if self._recorded == 1 and "norms" in tables:
            self._calls.update(tables["norms"]["site"])
        if self._recorded == 1 or len(self._notes) > notes:
            self._sink.annotate({"audit": self.audit().to_dict()})
        self._scale = None

    def _clip_coef(self, scale: float) -> float:
        """Gradient after clipping / before; an optimizer that unscales itself still had the scaled one."""
        if self._parameters is None:
            return float("nan")
        return self._parameters.clip_coef * (1.0 if self._unscales_itself else scale)

    def _write_open(self) -> None:
        """Write the row of ``steps``, last: a step counts as recorded when it is there."""
        row, self._open = self._open, None
        if row is not None:
            self._sink.append("steps", row)

    def _note_seen(self, tables: dict[str, dict[str, Any]]) -> None:
        norms = tables.get("norms")
        if norms is None:
            return
        sites = norms["site"]
        self._seen["fired"].update(sites)
        for end in ("grad_output", "grad_input"):
            came = norms[f"n_{end}"] > 0
            self._seen[end].update(sites if came.all() else [site for site, c in zip(sites, came, strict=True) if c])
        whole = (norms["n_grad_input"] == norms["n_grad_output"]) & (norms["energy_g"] > 0)
        removed = norms["energy_g"] - norms["energy_recentering"] - norms["energy_kept"]
        wrong = whole & (removed < -_IMPOSSIBLE * norms["energy_g"])
        if wrong.any():
            self._impossible.update(site for site, w in zip(sites, wrong, strict=True) if w)
        broken = norms["vectors"] > norms["n_input"]
        if broken.any() and not self._first_nonfinite:
            self._first_nonfinite = f"{sites[int(broken.argmax())]}, step {self._step}"

    def _close(self, status: str) -> None:
        if not self._handles:
            return
        self._remove_hooks()
        try:
            self._write_open()
            self._closed = True
            self._sink.annotate({"audit": self.audit().to_dict()})
        finally:
            self._sink.close(self._status or status)

    def _remove_hooks(self) -> None:
        # Graphs that hold the hooks ask for this before they run.
        self._switch.recording = False
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._functions.close()


def _steps_row(step: int, **known: float) -> dict[str, Any]:
    """Return a row of ``steps`` in which what is not known is missing."""
    absent = dict.fromkeys(("loss", "lr", "grad_norm", "clip_coef", "loss_scale", "seconds"), float("nan"))
    return {"step": [step]} | {name: [value] for name, value in (absent | known).items()} | {"extra": [{}]}


def _device(model: nn.Module) -> torch.device:
    """Where the model is, by its first parameter or buffer."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def _closure(args: Any, kwargs: Any) -> bool:
    """Whether optimizer.step was called with a closure."""
    return any(callable(value) for value in (*args, *kwargs.values()))


def _number(value: Tensor | float | None) -> float:
    if isinstance(value, Tensor):
        value = value.detach()
    return float("nan") if value is None else float(value)


def _whole_norm(params: dict[str, Any] | None) -> float:
    if params is None or np.isnan(params["grad_squares"]).all():
        return float("nan")
    return float(np.sqrt(np.nansum(params["grad_squares"])))
