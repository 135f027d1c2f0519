"""The random number generators, seeded for a while and then as they were."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


@contextmanager
def seeded(seed: int, tensors: Iterable[Tensor] = ()) -> Iterator[None]:
    """Seed torch's, Python's and numpy's generators inside, and put their states back, also after an exception.

    Args:
        seed: for all of them.
        tensors: on whose CUDA devices the generators are kept too.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def states(tensors: Iterable[Tensor] = ()) -> list[Tensor]:
    """Return the states of torch's generators: on the CPU, and on the tensors' CUDA devices."""
    devices = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
