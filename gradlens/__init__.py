"""gradlens: see what normalization layers do to the gradients of any PyTorch model.

Names are imported when they are first used, so that ``import gradlens``, ``gradlens --help`` and reading a
finished run do not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlens.analysis import Finding, compare
    from gradlens.errors import GradlensError
    from gradlens.lens import at_init, attach, register_norm
    from gradlens.recording import Recording, load
    from gradlens.report import report

__version__ = "0.1.0"

_HOME = {
    "attach": "gradlens.lens",
    "at_init": "gradlens.lens",
    "register_norm": "gradlens.lens",
    "load": "gradlens.recording",
    "Recording": "gradlens.recording",
    "compare": "gradlens.analysis",
    "Finding": "gradlens.analysis",
    "report": "gradlens.report",
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
    "register_norm",
    "report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gradlens' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
