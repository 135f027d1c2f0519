"""Where a norm's γ is read: never by running anything of the user's.

A parameter is read as it is. What a parametrization (weight norm, spectral norm, dropout) makes of one is seen by a
hook on the parametrization as the module's own forward pass runs it; what an older kind of hook leaves as a plain
tensor is read after the module has run.
"""

import inspect
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from gradlens.errors import GradlensError
from gradlens.lens.hook_state import HookState
from gradlens.lens.hooks import Hook
from gradlens.recognition.kinds import NormKind


class Gain:
    """γ of one norm.

    Args:
        kind: how it normalizes, and under which name γ is; None while that is not known.
        module: the norm as it is when the lens is attached.
        state: shared with all hooks.
    """

    def __init__(self, kind: NormKind | None, module: nn.Module, state: HookState) -> None:
        self.kind, self._module, self._state = kind, module, state
        #: What its parametrization returned last, by thread.
        self._made: dict[int, Tensor] = {}

    @property
    def _name(self) -> str:
        """The attribute that γ is in."""
        return "weight" if self.kind is None else self.kind.gain_name

    def handles(self, hook: Callable[[Callable[..., Any]], Hook]) -> list[RemovableHandle]:
        """Register what sees a parametrization run.

        Args:
            hook: makes a hook of a function.
        """
        module: Any = self._module
        if not parametrize.is_parametrized(module, self._name):
            return []
        return [module.parametrizations[self._name].register_forward_hook(hook(self._saw))]

    def _saw(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling() and self._state.recording and isinstance(output, Tensor):
            self._made[threading.get_ident()] = output.detach()

    def is_parameter(self, module: nn.Module) -> bool:
        """Whether γ is a parameter that lies there before the module runs, or there is none."""
        own, name = getattr(module, "_parameters", None), self._name
        return own is None or name in own or not (name in vars(module) or _is_computed(type(module), name))

    def of_this_call(self, module: nn.Module, ndim: int) -> Tensor | None:
        """Return γ of the call that runs now or has just run, copied, for γ may change before its gradient comes.

        Args:
            module: the norm, or what a function was given.
            ndim: dimensions of the input.

        Returns:
            Broadcastable to the input's vectors; None where there is none.

        Raises:
            GradlensError: it was not seen, and only the user's code could tell.
        """
        given = None if self.is_parameter(module) else self._made_for(module)
        gain = None if self.kind is None else self.kind.gain(module, ndim, given)
        return gain if gain is None else gain.clone()

    def _made_for(self, module: nn.Module) -> Tensor | None:
        given = self._made.pop(threading.get_ident(), None)
        if given is None:
            # Inside of ``parametrize.cached()`` it runs once for many calls.
            given = parametrize._cache.get((id(module), self._name))
        if given is None and _is_computed(type(module), self._name):
            raise GradlensError(
                f"{self._name} is computed whenever it is read, and the lens runs nothing of yours; a parametrization "
                "(torch.nn.utils.parametrize) that is there when the lens is attached is seen"
            )
        return given


def _is_computed(cls: type, name: str) -> bool:
    """Whether to read an attribute of a class's objects is to run code of the user's."""
    return hasattr(inspect.getattr_static(cls, name, None), "__get__")
