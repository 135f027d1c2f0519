"""Normalizations called as functions (``F.layer_norm`` and its like), which no module hook sees.

While a watcher is active, ``torch.layer_norm`` and its like are wrapped, which ``torch.nn.functional`` looks up at
each call. A call from inside a tapped module passes through; any other is either recorded as a site of its own
(``functional=True``), or counted during the first recorded step so that the audit can name it. The caller is the
nearest module on the Python stack.
"""

import functools
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.lens.compiling import compiled_inside
from gradlens.lens.hook_state import HookState
from gradlens.lens.hooks import Hook
from gradlens.lens.sites import Site
from gradlens.lens.taps.norm import NormTap
from gradlens.lens.taps.tap import Tap
from gradlens.recognition import TORCH_KINDS, Taken

#: Function of ``torch`` to the layer that does the same, and the names of its arguments (builtins have no signature).
_FUNCTIONS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "layer_norm": (nn.LayerNorm, ("input", "normalized_shape", "weight", "bias", "eps", "cudnn_enable")),
    "rms_norm": (nn.RMSNorm, ("input", "normalized_shape", "weight", "eps")),
    "batch_norm": (
        nn.BatchNorm1d,
        ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled"),
    ),
    "group_norm": (nn.GroupNorm, ("input", "num_groups", "weight", "bias", "eps", "cudnn_enabled")),
    "instance_norm": (
        nn.InstanceNorm1d,
        ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled"),
    ),
}
_DEFAULTS = {"weight": None, "bias": None, "training": True}
_EPS = {"layer_norm": 1e-5, "group_norm": 1e-5}
_original: dict[str, Callable[..., Tensor]] = {}
_active: list["Watcher"] = []


class Watcher:
    """Sees normalizations that run as functions inside one model.

    Args:
        model: the watched model.
        state: the lens' shared state.
        record: record them; otherwise only count them in the first recorded step.
    """

    def __init__(self, model: nn.Module, state: HookState, *, record: bool) -> None:
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._state, self.record = state, record
        #: Identity of every gain that was passed to a recorded function.
        self._gains: set[int] = set()
        self._tapped: dict[int, NormTap] = {}
        self._taps: dict[str, NormTap] = {}
        self._counted = False
        #: A graph would be compiled again for the wrapped functions, and see nothing through them.
        self._compiled = bool(compiled_inside(model))
        self.new_site: Callable[[Site], None] = lambda site: None
        self._look = state.guard.around(self._see)

    def know(self, taps: list[Tap]) -> None:
        """Tell which modules are tapped already."""
        self._tapped = {id(tap.site.module): tap for tap in taps if isinstance(tap, NormTap) and tap.is_norm}

    def start(self) -> None:
        """Start watching for good where calls are recorded; nothing is registered on the model."""
        if self.record:
            _activate(self)

    def begin(self) -> None:
        """A forward pass begins."""
        if not self.record and not self._counted and not self._compiled:
            _activate(self)

    def end(self) -> None:
        """The backward pass has ended, or the lens is detached."""
        if not self.record and self in _active:
            self._counted = True
            _deactivate(self)

    def close(self) -> None:
        """Stop watching."""
        _deactivate(self)

    def taps(self) -> list[Tap]:
        """Return the taps of functions that were recorded."""
        return list(self._taps.values())

    def as_functions(self) -> set[str]:
        """Return the tapped modules that did not run themselves, but whose gain a recorded function was given."""
        return {
            tap.site.path
            for tap in self._tapped.values()
            if id(tap.site.module._parameters.get("weight")) in self._gains
        }

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Tensor]) -> Tensor:
        """Run one functional normalization, recorded, counted, or passed through."""
        seen = self._look(name, args, kwargs) if self._state.recording else None
        if seen is None:
            return run(*args, **kwargs)
        before, after, norm, x = seen
        handed_on = before(norm, (x,), {})
        x = x if handed_on is None else handed_on[0][0]
        y = run(x, *args[1:], **{key: value for key, value in kwargs.items() if key != "input"})
        after(norm, (x,), {}, y)
        return y

    def _see(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Hook, Hook, Any, Any] | None:
        """Return the hooks to run, what the call normalizes with, and its input; None where it is not recorded."""
        caller = self._caller()
        tap = self._tapped.get(id(caller))
        if caller is None or (tap is not None and (tap.inside or tap.silent)):
            return None
        path = self._paths[id(caller)]
        if not self.record:
            where = f"{path or 'the model'}: F.{name}" if tap is None else f"{path}.forward()"
            self._state.observed.functional[where] += 1
            return None
        given = dict(zip(_FUNCTIONS[name][1], args, strict=False)) | kwargs
        if "input" not in given:
            return None  # a wrong call, which torch answers
        given["training"] = given.get("use_input_stats", given.get("training", True))
        norm: Any = caller if tap is not None else SimpleNamespace(**{**_DEFAULTS, "eps": _EPS.get(name), **given})
        self._gains.add(id(given.get("weight")))
        tap = tap or self._tap(path, name, norm)
        return tap.hook(tap.before), tap.hook(tap.after), norm, given["input"]

    def _tap(self, path: str, name: str, norm: Any) -> NormTap:
        site = f"{path}#{name}" if path else f"#{name}"
        if site not in self._taps:
            kind = TORCH_KINDS[_FUNCTIONS[name][0]]
            order = len(self._paths) + len(self._taps)
            found = Site(
                path=site, module=norm, kind="norm", order=order, norm=kind, taken=Taken(kind, "class"),
                placement="unknown",
            )  # fmt: skip
            self._taps[site] = NormTap(found, self._state)
            self.new_site(found)
        return self._taps[site]

    def _caller(self) -> nn.Module | None:
        """The nearest module of the model on the Python stack."""
        frame = sys._getframe(4)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in self._paths:
                return owner
            frame = frame.f_back  # type: ignore[assignment]
        return None


def _activate(watcher: Watcher) -> None:
    if watcher in _active:
        return
    if not _active:
        for name in _FUNCTIONS:
            _original[name] = getattr(torch, name)
            setattr(torch, name, _wrapped(name))
    _active.append(watcher)


def _deactivate(watcher: Watcher) -> None:
    if watcher in _active:
        _active.remove(watcher)
        if not _active:
            for name, function in _original.items():
                setattr(torch, name, function)


def _wrapped(name: str) -> Callable[..., Tensor]:
    original = _original[name]

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Tensor:
        if torch.compiler.is_compiling():
            return original(*args, **kwargs)
        chain: Callable[..., Tensor] = original
        for watcher in _active:
            chain = _bound(watcher, name, chain)
        return chain(*args, **kwargs)

    return run


def _bound(watcher: Watcher, name: str, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: watcher.call(name, args, kwargs, run)
