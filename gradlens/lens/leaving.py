"""How a lens leaves its model: when it is told to, and when nobody holds it any more."""

import weakref
from collections.abc import Callable
from typing import Any

from torch.utils.hooks import RemovableHandle

from gradlens.lens.guard import Guard
from gradlens.lens.hook_state import HookState
from gradlens.lens.taps.functional import Watcher


def remove(state: HookState, handles: list[RemovableHandle], functions: Watcher) -> None:
    """Remove a lens' hooks from its model, and from torch's functions."""
    # Graphs that hold the hooks ask for this before they run.
    state.recording = False
    for handle in handles:
        handle.remove()
    handles.clear()
    functions.close()


def forget(guard: Guard, state: HookState, handles: list[RemovableHandle], functions: Watcher) -> None:
    """Take a lens off its model that nobody holds any more, and whose recording was in memory."""
    guard.ended = guard.ended or "Nobody holds the lens any more."  # which silences what is left, on an optimizer
    remove(state, handles, functions)


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Return a function that calls a method as long as its object lives."""
    weak = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        alive = weak()
        if alive is not None:
            alive(*args)

    return call
