"""The library, and which tensors it can take."""

import ctypes
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.native.building import compiled, measures

#: The core's number of each kind of number that it reads.
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_PLAIN = (Tensor, nn.Parameter)


def _load() -> ctypes.CDLL | None:
    if measures() != "native":
        return None
    with suppress(OSError):  # compiled for another system
        return ctypes.CDLL(str(compiled()))
    return None


def _fork() -> int:
    """Return the entry by which torch's own threads are given work; 0 where that is not to be found."""
    with suppress(OSError, AttributeError):
        own = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
        return ctypes.cast(ctypes.CDLL(str(own)).GOMP_parallel, ctypes.c_void_p).value or 0
    return 0


#: The library; None where torch's operations measure.
library = _load()
FORK = 0 if library is None else _fork()
if library is not None:
    _long, _at = ctypes.c_int64, ctypes.c_void_p
    library.moments.argtypes = (_at, _at, _at, _long, _long, _long, _at, _at, _long)
    library.moments.restype = library.sums.restype = library.gather.restype = None
    library.sums.argtypes = (_long, _at, _at, _at)
    library.gather.argtypes = (_long, _at, _at, _at, _long, _at)
    library.parameters.argtypes = (_long, _at, _at, _at, _at, _long, _at, _at, _at, _long)


def takes(x: Tensor) -> bool:
    """Whether a tensor is one that the core can read."""
    return bool(
        library is not None
        and type(x) in _PLAIN
        and x.is_cpu
        and x.dtype in DTYPES
        and x.layout is torch.strided
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and not x.is_neg()
        and x.data_ptr()
    )


def pointers(addresses: Iterable[int], many: int) -> Any:
    """Return an array of addresses."""
    return (ctypes.c_void_p * many)(*addresses)


@lru_cache(64)
def longs(values: tuple[int, ...]) -> Any:
    """Return an array of integers."""
    return (ctypes.c_int64 * len(values))(*values)
