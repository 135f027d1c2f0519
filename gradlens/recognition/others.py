"""What ran and was no norm: its like need not be looked at again, in another block, seed or test.

Looking at a module takes a tenth of a second, and models repeat theirs. Alike are two of one class whose every
attribute reads the same, inside as well; where an attribute cannot be read, they are not taken for alike.
"""

import math
from types import BuiltinFunctionType, FunctionType
from weakref import WeakKeyDictionary

from torch import Tensor, nn

_others: "WeakKeyDictionary[type[nn.Module], set[object]]" = WeakKeyDictionary()
#: What every module holds for torch.
_TORCHS = frozenset(vars(nn.Module())) - {"training"}


def is_other(module: nn.Module, x: Tensor) -> bool:
    """Return whether one like this ran on an input of as many dimensions as x, and was no norm."""
    known = _others.get(type(module))
    return known is not None and (_reading(module), x.dim()) in known


def is_no_norm(module: nn.Module, x: Tensor) -> None:
    """Remember that this one ran on x and was no norm, if x could tell."""
    reading = _reading(module)
    if reading is not None and 0 < float(x.float().std()) < math.inf:
        _others.setdefault(type(module), set()).add((reading, x.dim()))


def _reading(module: nn.Module) -> tuple[object, ...] | None:
    """Return all that a module's behaviour may depend on but numbers in its tensors; None where that is hidden."""
    read: list[object] = []
    for name, part in module.named_modules():
        read.append((name, type(part)))
        for key, value in vars(part).items():
            if key in _TORCHS:
                continue
            if isinstance(value, FunctionType | BuiltinFunctionType):
                said = f"{value.__module__}.{value.__qualname__}"
            else:
                said = "" if isinstance(value, Tensor) else repr(value)
            if any(hidden in said for hidden in (" at 0x", "<locals>", "<lambda>")):
                return None
            read.append((key, type(value), said))
    tensors = module.state_dict(keep_vars=True).items()
    return (*read, *((name, tuple(tensor.shape)) for name, tensor in tensors if isinstance(tensor, Tensor)))
