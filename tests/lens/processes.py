"""Several processes that train one model together, each in one of the ways PyTorch offers; started by ``together``."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import gradlens
from tests.lens.networks import WIDTH, stir

STEPS = 2
#: Sequences of each process that gets its own: not equally many.
SHARES = (5, 3)


class Block(nn.Module):
    """A residual block with a branch of two matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(self.norm(x)).relu())


def network() -> nn.Sequential:
    """Blocks with a norm after them, in float64: what is left of a difference is an error."""
    torch.manual_seed(0)
    blocks = nn.Sequential(*[Block() for _ in range(3)])
    return stir(nn.Sequential(nn.Linear(WIDTH, WIDTH), blocks, nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 1))).double()


def batch(step: int) -> Tensor:
    return torch.randn(sum(SHARES), 6, WIDTH, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def alone(folder: Path, shares: tuple[int, ...]) -> gradlens.Recording:
    """One process with all the data; the loss is the mean over the shares, as those train it that share the data."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, out=folder) as lens:
        for step in range(STEPS):
            optimizer.zero_grad()
            losses = [part.square().mean() for part in model(batch(step)).split(shares)]
            loss = torch.stack(losses).mean()
            loss.backward()
            optimizer.step()
            lens.step(loss=loss)
    return gradlens.load(folder)


def together(way: str, folder: Path, attached: tuple[int, ...] = (), kill: bool = False) -> gradlens.Recording:
    """Train in one of the ``WAYS`` and return what was recorded.

    Args:
        way: which.
        folder: of the run.
        attached: ranks that attach a lens; by default all.
        kill: whether the process of rank 1 ends with the program after its last step, and closes nothing.
    """
    processes = WAYS[way][0]
    ranks = attached or tuple(range(processes))
    torch.multiprocessing.spawn(_train, (way, folder, ranks, kill), nprocs=processes)
    return gradlens.load(folder)


def _train(rank: int, way: str, folder: Path, attached: tuple[int, ...], kill: bool) -> None:
    processes = WAYS[way][0]
    torch.set_num_threads(1)
    file, patience = f"file://{folder}.store", timedelta(minutes=2)
    dist.init_process_group("gloo", init_method=file, rank=rank, world_size=processes, timeout=patience)
    expected = _run(way, rank, None)
    weights = _run(way, rank, folder if rank in attached else None, kill=kill and rank == 1)
    assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True)), "the lens changed the training"
    dist.destroy_process_group()


def micro_batches_without_sync(rank: int, folder: Path) -> None:
    """Train on micro-batches whose gradients wait in FSDP until a step's last one, and on plain ones."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}.store", rank=rank, world_size=1)
    for name in ("waiting", "plain"):
        model = network() if name == "plain" else _fsdp(network())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with gradlens.attach(model, out=folder / name, optimizer=optimizer):
            for step in range(STEPS):
                optimizer.zero_grad()
                for index, part in enumerate(batch(step).split(3)):
                    if name == "waiting":
                        model.set_requires_gradient_sync(index == 2)
                    model(part).square().mean().backward()
                optimizer.step()
    dist.destroy_process_group()


def _run(way: str, rank: int, folder: Path | None, kill: bool = False) -> list[Tensor]:
    """Train and return this process's part of the weights."""
    _, wrap, share = WAYS[way]
    model = wrap(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nullcontext() if folder is None else gradlens.attach(model, out=folder) as lens:
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = model(share(batch(step), rank)).square().mean()
            loss.backward()
            optimizer.step()
            if lens is not None:
                lens.step(loss=loss)
        dist.barrier()
        if kill:
            os._exit(0)
    return [getattr(p.detach(), "to_local", p.detach)() for p in model.parameters()]


def _own_part(x: Tensor, rank: int) -> Tensor:
    return x.split(SHARES)[rank]


def _pair_part(x: Tensor, rank: int) -> Tensor:
    """Of four processes two get the same data: those of one tensor-parallel group."""
    return x.split(SHARES)[rank // 2]


def _all(x: Tensor, rank: int) -> Tensor:
    return x


def _fsdp(model: nn.Sequential) -> nn.Module:
    for block in model[1]:
        fully_shard(block)
    return fully_shard(model)


def _tensor_parallel(model: nn.Sequential, mesh) -> nn.Sequential:
    for block in model[1]:
        parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return model


def _tensor_parallel_alone(model: nn.Sequential) -> nn.Module:
    return _tensor_parallel(model, init_device_mesh("cpu", (2,)))


def _tensor_parallel_in_fsdp(model: nn.Sequential) -> nn.Module:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    _tensor_parallel(model, mesh["tensor"])
    for block in model[1]:
        fully_shard(block, mesh=mesh["data"])
    return fully_shard(model, mesh=mesh["data"])


def _sequence_parallel(model: nn.Sequential) -> nn.Module:
    """Between the first layer and the last, each process has half of every sequence."""
    mesh, along = init_device_mesh("cpu", (2,)), Shard(1)
    plan = {"norm": SequenceParallel(), "up": ColwiseParallel(input_layouts=along)}
    for block in model[1]:
        parallelize_module(block, mesh, plan | {"down": RowwiseParallel(output_layouts=along)})
    ends = {"1": PrepareModuleInput(input_layouts=Replicate(), desired_input_layouts=along, use_local_output=True)}
    ends |= {"3": PrepareModuleInput(input_layouts=along, desired_input_layouts=Replicate(), use_local_output=True)}
    return parallelize_module(model, mesh, ends | {"2": SequenceParallel()})


#: Name to the number of processes, how the model is wrapped, and which part of a batch a process gets.
WAYS: dict[str, tuple[int, Callable[[nn.Sequential], nn.Module], Callable[[Tensor, int], Tensor]]] = {
    "ddp": (2, DistributedDataParallel, _own_part),
    "fsdp": (2, _fsdp, _own_part),
    "tensor parallel": (2, _tensor_parallel_alone, _all),
    "sequence parallel": (2, _sequence_parallel, _all),
    "tensor parallel in fsdp": (4, _tensor_parallel_in_fsdp, _pair_part),
}
