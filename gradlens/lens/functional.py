"""Normalizations called as functions (``F.layer_norm`` and its like), which no module hook sees.

While a watcher is active, the functions of ``torch.nn.functional`` are wrapped. A call from inside a tapped module
passes through; any other is either recorded as a site of its own (``functional=True``), or counted during the first
recorded step so that the audit can name it. The caller is the nearest module on the Python stack.
"""

import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.lens.norm_kinds import TORCH_KINDS
from gradlens.lens.sites import Site
from gradlens.lens.taps import NormTap, Switch, Tap

_FUNCTIONS: dict[str, type[nn.Module]] = {
    "layer_norm": nn.LayerNorm,
    "rms_norm": nn.RMSNorm,
    "batch_norm": nn.BatchNorm1d,
    "group_norm": nn.GroupNorm,
    "instance_norm": nn.InstanceNorm1d,
}
_original: dict[str, Callable[..., Tensor]] = {}
_active: list["Watcher"] = []


class Watcher:
    """Sees normalizations that run as functions inside one model.

    Args:
        model: the watched model.
        switch: the lens' shared state.
        record: record them; otherwise only count them in the first recorded step.
    """

    def __init__(self, model: nn.Module, switch: Switch, *, record: bool) -> None:
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._switch, self._record = switch, record
        self._tapped: dict[int, NormTap] = {}
        self._taps: dict[str, NormTap] = {}
        self._counts: Counter[str] = Counter()
        self._counted = False
        self.new_site: Callable[[Site], None] = lambda site: None

    def know(self, taps: list[Tap]) -> None:
        """Tell which modules are tapped already."""
        self._tapped = {id(tap.site.module): tap for tap in taps if isinstance(tap, NormTap)}

    def start(self) -> None:
        """Start watching for good where calls are recorded; nothing is registered on the model."""
        if self._record:
            _activate(self)

    def begin(self) -> None:
        """A forward pass begins."""
        if not self._record and not self._counted:
            _activate(self)

    def end(self) -> None:
        """The backward pass has ended, or the lens is detached."""
        if not self._record and self in _active:
            self._counted = True
            _deactivate(self)

    def close(self) -> None:
        """Stop watching."""
        _deactivate(self)

    def taps(self) -> list[Tap]:
        """Return the taps of functions that were recorded."""
        return list(self._taps.values())

    def unseen(self) -> dict[str, int]:
        """Return where normalizations ran that were not recorded, and how often in the first step."""
        return dict(self._counts)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Tensor]) -> Tensor:
        """Run one functional normalization, recorded, counted, or passed through."""
        caller = self._caller() if self._switch.recording else None
        tap = self._tapped.get(id(caller))
        if caller is None or (tap is not None and tap.inside):
            return run(*args, **kwargs)
        path = self._paths[id(caller)]
        if not self._record:
            self._counts[f"{path or 'the model'}: F.{name}" if tap is None else f"{path}.forward()"] += 1
            return run(*args, **kwargs)
        bound = inspect.signature(_original[name]).bind(*args, **kwargs)
        bound.apply_defaults()
        values = dict(bound.arguments)
        values["training"] = values.get("training", values.get("use_input_stats", True))
        norm: Any = caller if tap is not None else SimpleNamespace(**values)
        tap = tap or self._tap(path, name, norm)
        result = tap.before(norm, (values["input"],), {})
        x = values["input"] if result is None else result[0][0]
        rest = {key: value for key, value in bound.arguments.items() if key != "input"}
        y = run(x, **rest)
        tap.after(norm, (x,), y)
        return y

    def _tap(self, path: str, name: str, norm: Any) -> NormTap:
        site = f"{path}#{name}" if path else f"#{name}"
        if site not in self._taps:
            kind = TORCH_KINDS[_FUNCTIONS[name]]
            order = len(self._paths) + len(self._taps)
            found = Site(path=site, module=norm, kind="norm", order=order, norm=kind, placement="unknown")
            self._taps[site] = NormTap(found, self._switch)
            self.new_site(found)
        return self._taps[site]

    def _caller(self) -> nn.Module | None:
        """The nearest module of the model on the Python stack."""
        frame = sys._getframe(2)
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
            _original[name] = getattr(F, name)
            setattr(F, name, _wrapped(name))
    _active.append(watcher)


def _deactivate(watcher: Watcher) -> None:
    if watcher in _active:
        _active.remove(watcher)
        if not _active:
            for name, function in _original.items():
                setattr(F, name, function)


def _wrapped(name: str) -> Callable[..., Tensor]:
    original = _original[name]

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Tensor:
        chain: Callable[..., Tensor] = original
        for watcher in _active:
            chain = _bound(watcher, name, chain)
        return chain(*args, **kwargs)

    return run


def _bound(watcher: Watcher, name: str, run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: watcher.call(name, args, kwargs, run)
