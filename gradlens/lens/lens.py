"""The ``Lens``: which steps are recorded, where a step ends, and what is written then."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradlens.errors import GradlensError
from gradlens.lens import functional as functional_norms
from gradlens.lens.audit import Audit
from gradlens.lens.parameters import ParameterReader
from gradlens.lens.sinks import Sink
from gradlens.lens.sites import Site, discover
from gradlens.lens.step_rows import step_tables
from gradlens.lens.taps import RootTap, Switch, Tap, taps_of
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
        self._sink, self._every, self._scaler, self._optimizer = sink, every, scaler, optimizer
        self._switch = Switch(rank)
        self._step = 0
        self._recorded = 0
        self._status: str | None = None
        self._backward_ended = self._closed = False
        self._scale: Tensor | None = None
        self._lr = float("nan")
        self._clock = time.perf_counter()
        self._first_nonfinite = ""
        self._impossible: set[str] = set()
        self._notes: set[str] = set()
        self._scaler_states: Any = None
        self._parameters = ParameterReader(model, "updates" in watch) if {"params", "updates"} & set(watch) else None
        sites, self._strangers = discover(model, watch)
        self._taps = [tap for site in sites for tap in taps_of(site, self._switch)]
        self._seen: dict[str, set[str]] = {"fired": set(), "grad_output": set(), "grad_input": set()}
        self._switch.on_forward, self._switch.on_backward_end = self._on_forward, self._on_backward_end
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
            scalars: anything else worth a column in ``steps``.

        Raises:
            GradlensError: a scalar has the name of a column that gradlens fills itself.
            RecordingError: the run folder cannot be written.
        """
        if self._closed:
            raise GradlensError("step() belongs inside the recording; this lens is detached. Attach a new one.")
        taken = _OWN_COLUMNS & scalars.keys()
        if taken:
            raise GradlensError(f"step() fills {', '.join(sorted(taken))} itself; give your number another name.")
        self._switch.stepped = False
        if self._switch.recording:
            self._write(loss, lr, scalars)
        self._step += 1
        self._backward_ended = self._switch.root_seen = False
        self._switch.recording = self._step % self._every == 0
        self._clock = time.perf_counter()

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
        return self._sink.recording()

    @property
    def model_sites(self) -> list[str]:
        """Paths of the normalizations that are tapped."""
        return [tap.site.path for tap in self._taps if tap.site.norm is not None]

    def audit(self) -> Audit:
        """Say what was seen and what was missed; meaningful after the first recorded step."""
        norms = tuple(self.model_sites)
        fired = tuple(path for path in norms if path in self._seen["fired"])
        return Audit(
            norms=norms,
            fired=fired,
            silent=tuple(path for path in norms if path not in self._seen["fired"]),
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
        )

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
        if self._switch.stepped or self._scaler_skipped():
            self.step()
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

    def _on_backward_end(self) -> None:
        self._backward_ended = True
        self._functions.end()
        self._switch.drain()
        if self._parameters is not None:
            self._parameters.read()
        self._scaler_states = getattr(self._scaler, "_per_optimizer_states", None)
        scale = getattr(self._scaler, "_scale", None)
        self._scale = scale.detach().clone() if isinstance(scale, Tensor) else None

    def _before_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._lr = float(optimizer.param_groups[0]["lr"])
        if self._switch.recording and self._parameters is not None:
            if self._parameters.was_read:
                self._parameters.reread()
            else:
                self._read_late("before the optimizer")

    def _after_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._switch.stepped = True

    # ------------------------------------------------------------------ writing and closing

    def _read_late(self, when: str) -> None:
        """Read gradients whose end of backward was not seen, and say so."""
        if self._parameters is not None and self._parameters.any_gradient():
            self._parameters.read()
            self._notes.add(
                f"The end of backward was not seen (the root module's forward did not run, or returns no tensor): "
                f"parameter gradients were read {when}, after clipping if there was any."
            )

    def _write_sites(self, sites: list[Site]) -> None:
        rows = [site.row() for site in sites]
        if rows:
            self._sink.append("sites", {key: [row[key] for row in rows] for key in rows[0]})

    def _all_taps(self) -> list[Tap]:
        return [*self._taps, *self._functions.taps()]

    def _write(self, loss: Tensor | float | None, lr: float | None, scalars: dict[str, Tensor | float]) -> None:
        notes = len(self._notes)
        if self._parameters is not None and not self._parameters.was_read:
            self._read_late("in step()")
        scale = float(self._scale) if self._scale is not None else 1.0
        tables = step_tables(self._step, self._all_taps(), self._parameters, scale)
        self._note_seen(tables)
        row: dict[str, Any] = {
            "step": [self._step],
            "loss": [_number(loss)],
            "lr": [self._lr if lr is None else float(lr)],
            "grad_norm": [_whole_norm(tables.get("params"))],
            "clip_coef": [self._parameters.clip_coef * scale if self._parameters else float("nan")],
            "loss_scale": [scale if self._scaler is not None else float("nan")],
            "seconds": [time.perf_counter() - self._clock],
            "extra": [{key: _number(value) for key, value in scalars.items()}],
        }
        for table, columns in tables.items():
            self._sink.append(table, columns)
        # Last: a step counts as recorded when its row in ``steps`` is there.
        self._sink.append("steps", row)
        for tap in self._all_taps():
            tap.new_call()
        self._recorded += 1
        if self._recorded == 1 or len(self._notes) > notes:
            self._sink.annotate({"audit": self.audit().to_dict()})
        self._scale = None

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
            if self._switch.stepped:
                self.step()
            self._closed = True
            self._sink.annotate({"audit": self.audit().to_dict()})
        finally:
            self._sink.close(self._status or status)

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._functions.close()


def _number(value: Tensor | float | None) -> float:
    if isinstance(value, Tensor):
        value = value.detach()
    return float("nan") if value is None else float(value)


def _whole_norm(params: dict[str, Any] | None) -> float:
    if params is None or np.isnan(params["grad_squares"]).all():
        return float("nan")
    return float(np.sqrt(np.nansum(params["grad_squares"])))
