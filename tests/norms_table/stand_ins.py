"""Lets packages be imported that import torchvision or torchaudio, whose wheels are for CUDA; no norm needs them."""

import importlib.machinery
import sys
from unittest.mock import MagicMock

import torch

#: Operators that torchvision describes while it is imported; held, for a library's operators go with it.
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

try:
    import torchaudio  # noqa: F401
except (ImportError, OSError, RuntimeError):
    for _name in ("", ".transforms", ".functional", ".models", ".compliance", ".compliance.kaldi", ".backend"):
        _module = MagicMock(__version__="2.11.0")
        _module.__spec__ = importlib.machinery.ModuleSpec(f"torchaudio{_name}", None)
        sys.modules[f"torchaudio{_name}"] = _module
