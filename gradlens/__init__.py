"""gradlens: see what normalization layers do to the gradients of any PyTorch model.

Names are imported when they are first used, so that ``import gradlens``, ``gradlens --help`` and reading a
finished run do not import torch.
"""

from collections.abc import Iterable
from functools import wraps
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlens.analysis import Finding, compare, plot
    from gradlens.errors import GradlensError
    from gradlens.lab.norms.swapping import swap
    from gradlens.lens import at_init, attach, register_norm
    from gradlens.recording import Recording, load
    from gradlens.reporting import report

_HOME = {
    "attach": "gradlens.lens",
    "at_init": "gradlens.lens",
    "register_norm": "gradlens.lens",
    "load": "gradlens.recording",
    "Recording": "gradlens.recording",
    "compare": "gradlens.analysis",
    "plot": "gradlens.analysis",
    "Finding": "gradlens.analysis",
    "report": "gradlens.reporting",
    "swap": "gradlens.lab.norms.swapping",
    "GradlensError": "gradlens.errors",
}

__all__ = [
    "Finding",
    "GradlensError",
    "Recording",
    "at_init",
    "attach",
    "compare",
    "load",
    "plot",
    "register_norm",
    "report",
    "swap",
]


def _recordings(given: Any, name: str) -> "list[Recording]":
    """Return what a function was given as a list of recordings: one, or several.

    Raises:
        GradlensError: something in it is none, such as the path of one.
    """
    from gradlens.errors import GradlensError
    from gradlens.recording import Recording

    several: list[Any] = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    for one in several:
        if not isinstance(one, Recording):
            hint = f"gradlens.load({str(one)!r})" if isinstance(one, str | Path) else "a list of recordings"
            raise GradlensError(
                f"gradlens.{name} takes recordings, which gradlens.load returns; got {one!r}. Give it {hint}."
            )
    return several


def _of_recordings(function: Any, name: str) -> Any:
    """Return a function of recordings that first makes sure that it was given some."""

    @wraps(function)
    def checked(recordings: Any, *more: Any, **named: Any) -> Any:
        # What ``compare`` returned is reported as well.
        made = name == "report" and hasattr(recordings, "findings")
        return function(recordings if made else _recordings(recordings, name), *more, **named)

    return checked


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            value = version("gradlens")
        except PackageNotFoundError:  # a checkout on the path that nobody installed
            value = "0+uninstalled"
        globals()[name] = value
        return value
    if name not in _HOME:
        raise AttributeError(f"module 'gradlens' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    if name in ("compare", "plot", "report"):
        value = _of_recordings(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
