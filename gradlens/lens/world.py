"""Where this process stands among those that train a model together, and which part of the numbers is its own.

Nothing here communicates: what a process holds is told from the model's wrappers and from where its DTensors lie. So a
lens may be attached on some processes only, and none ever waits for another. What several hold alike the first of them
records; sums over processes are taken when the recording is read.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """One process among others.

    Attributes:
        rank: its number.
        size: how many there are.
        data: ranks of the processes that get other data than this one and average the gradients with it, itself among
            them: those of DistributedDataParallel or FSDP.
        note: what keeps something from being recorded, and what to do; empty where nothing does.
        flattened: whether parameters are slices of flat ones, as FSDP 1 makes them.
    """

    rank: int = 0
    size: int = 1
    data: tuple[int, ...] = (0,)
    note: str = ""
    flattened: bool = False

    def holds(self, activation: Tensor) -> bool:
        """Whether an activation, or this process's part of it, is this one's to record: no process before it has it."""
        if self.size == 1:
            return True
        mesh = getattr(activation, "device_mesh", None)
        return 0 in self.data if mesh is None else _first(activation, mesh)

    def holds_parameter(self, parameter: Tensor) -> bool:
        """Whether a parameter, or this process's part of it, is this one's to record."""
        if self.size == 1:
            return True
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is None:
            return self.rank == 0 and not self.flattened
        return bool((mesh.mesh == 0).any()) and _first(parameter, mesh)


def distributed() -> bool:
    """Whether this process may be one of several."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def world_of(model: nn.Module) -> World:
    """Find out where this process stands, from the model as it is wrapped now."""
    if not distributed():
        return World()
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    fsdp = _fsdp()
    if fsdp is not None and any(isinstance(module, fsdp.FullyShardedDataParallel) for module in model.modules()):
        return World(rank, size, tuple(range(size)), _FLATTENED, flattened=True)
    for ranks in _data_parallel(model, fsdp):
        if rank in ranks:
            return World(rank, size, ranks)
    # Tensor parallelism alone: every process gets the same batch.
    if any(hasattr(parameter, "device_mesh") for parameter in model.parameters()):
        return World(rank, size, (rank,))
    return World(rank, size, tuple(range(size)), _UNWRAPPED if size > 1 else "")


_FLATTENED = (
    "Parameters are not recorded: FullyShardedDataParallel (FSDP 1) keeps slices of flattened ones. "
    "Use torch.distributed.fsdp.fully_shard."
)
_UNWRAPPED = (
    "Several processes run and no DistributedDataParallel or FSDP was found: they are taken to share the data, and "
    "gradients of parameters are those of process 0 when its backward ends. Attach after wrapping the model."
)


def _fsdp() -> Any:
    """Return PyTorch's module of FSDP where somebody has imported it: no model is wrapped in it else."""
    return sys.modules.get("torch.distributed.fsdp")


def _data_parallel(model: nn.Module, fsdp: Any) -> Iterator[tuple[int, ...]]:
    """Yield the ranks that each wrapper in a model divides the data between."""
    for module in model.modules():
        if isinstance(module, nn.parallel.DistributedDataParallel):
            yield tuple(torch.distributed.get_process_group_ranks(module.process_group))
        elif fsdp is not None and isinstance(module, fsdp.FSDPModule):
            for group in sharded_groups(module):
                yield tuple(group.mesh_info.mesh.mesh.flatten().tolist())


def sharded_groups(module: Any) -> list[Any]:
    """Return the groups of parameters that FSDP 2 made of a module, whose state is private; none for other modules."""
    state = module._get_fsdp_state() if hasattr(module, "_get_fsdp_state") else None
    # Before torch 2.12 there is one group, under another name.
    alone = [group for group in [getattr(state, "_fsdp_param_group", None)] if group is not None]
    return list(getattr(state, "_fsdp_param_groups", None) or alone)


def _first(tensor: Any, mesh: Any) -> bool:
    """Whether this process is the first of those that hold the same part of a DTensor."""
    coordinate = mesh.get_coordinate()
    return coordinate is not None and all(
        place == 0 for place, placement in zip(coordinate, tensor.placements, strict=True) if placement.is_replicate()
    )


def class_of(module: nn.Module) -> type[nn.Module]:
    """Return a module's class as it was written: ``fully_shard`` gives it another one derived from it."""
    cls, fsdp = type(module), _fsdp()
    if fsdp is not None and issubclass(cls, fsdp.FSDPModule):
        return next(base for base in cls.__mro__[1:] if not issubclass(base, fsdp.FSDPModule))
    return cls


def local(tensor: Any) -> Any:
    """Return this process's part of a DTensor; anything else as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def placements(tensor: Any) -> tuple[Any, ...]:
    """How a DTensor lies across processes; empty for other tensors."""
    return tuple(getattr(tensor, "placements", ()))


def is_partial(tensor: Any) -> bool:
    """Whether a DTensor is a sum over processes that was not taken yet."""
    return any(placement.is_partial() for placement in placements(tensor))
