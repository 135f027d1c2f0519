"""All hooks of one lens: how they come to stand, how they go when it is told to, or when nobody holds it any more."""

import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from gradlens.lens.hook_state import HookState
from gradlens.lens.taps import RootTap, Tap
from gradlens.lens.taps.functional import Watcher

#: What an optimizer's hook is called with.
_OptimizerHook = Callable[[torch.optim.Optimizer, Any, Any], None]


class LensHooks:
    """The hooks of one lens on its model, its optimizer, and torch's functions.

    Args:
        state: shared with all hooks.
        functions: normalizations that run as functions.
    """

    def __init__(self, state: HookState, functions: Watcher) -> None:
        self._state, self._functions = state, functions
        self._on_model: list[RemovableHandle] = []
        self._on_optimizer: list[RemovableHandle] = []

    def on_model(self, taps: Iterable[RootTap | Tap]) -> None:
        """Put hooks on a model, in this order, and watch torch's functions."""
        self.add(taps)
        self._functions.start()

    def add(self, taps: Iterable[RootTap | Tap]) -> None:
        """Put more hooks on a model."""
        for tap in taps:
            self._on_model += tap.handles()

    def on_optimizer(self, optimizer: torch.optim.Optimizer, before: _OptimizerHook, after: _OptimizerHook) -> None:
        """Put hooks before and after an optimizer's step."""
        self._on_optimizer = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]

    def leave_model(self) -> None:
        """Remove all but those on an optimizer, which may be walking over them now: they do nothing any more."""
        # Graphs that hold the hooks ask for this before they run.
        self._state.recording = False
        for handle in self._on_model:
            handle.remove()
        self._on_model.clear()
        with suppress(Exception):
            self._state.placing.forget()
        self._functions.close()
        if self._state.attention is not None:
            self._state.attention.end()

    def leave(self) -> None:
        """Remove all of them."""
        self.leave_model()
        for handle in self._on_optimizer:
            handle.remove()
        self._on_optimizer.clear()

    def forget(self) -> None:
        """Take a lens off its model that nobody holds any more, and whose recording was in memory."""
        guard = self._state.guard
        guard.ended = guard.ended or "Nobody holds the lens any more."  # which silences what is left, on an optimizer
        self.leave_model()


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls a method as long as its object lives."""
    weak = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        alive = weak()
        if alive is not None:
            alive(*args)

    return call
