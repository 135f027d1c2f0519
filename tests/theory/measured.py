"""The other side of the theory's tests: networks of the zoo, and what the theory predicts of them measured."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.lab.models.transformer import Transformer
from gradlens.theory.network import Network
from gradlens.theory.transformer import predict

#: Path of a stack to quantity (``stream`` or a parameter) to its values, block by block.
Table = dict[str, dict[str, np.ndarray]]
_HEADS = 4


@dataclass(frozen=True)
class Measured:
    """Means over seeds, and the standard deviation of one seed."""

    mean: Table
    deviation: Table


def network(arrangement: str, kind: str, blocks: int, *, outputs: int = 1000, **more: Any) -> Network:
    """A network at a size that a CPU measures: d = f = 256, 4 × 32 random tokens of 1000, sources of 24."""
    names = ("coincidence", "label_coincidence", "source_coincidence")
    alike = dict.fromkeys(names, (1 / outputs, 1 / outputs))
    sizes = {"width": 256, "ffn": 256, "outputs": outputs, "sequences": 4, "length": 32, "source_length": 24}
    return Network(arrangement=arrangement, kind=kind, blocks=blocks, **{**sizes, **alike, **more})


@cache
def measure(network: Network, seeds: int, variant: str = "") -> Measured:
    """Measure networks drawn with the seeds 0, 1, ..., each on tokens and labels of its own; once in a process.

    The variant is that of the zoo, where it is not called as its theory is.
    """
    runs = [_measure_one(network, variant or network.arrangement, seed) for seed in range(seeds)]
    mean: Table = {}
    deviation: Table = {}
    for stack, quantities in runs[0].items():
        values = {name: np.array([run[stack][name] for run in runs]) for name in quantities}
        mean[stack] = {name: of_seeds.mean(0) for name, of_seeds in values.items()}
        deviation[stack] = {name: of_seeds.std(0, ddof=1) for name, of_seeds in values.items()}
    return Measured(mean, deviation)


def predicted(network: Network) -> Table:
    """The same table from the theory."""
    return {path: {"stream": stack.stream[1:], **stack.gradients} for path, stack in predict(network).items()}


def errors(predicted: Table, measured: Table) -> dict[str, np.ndarray]:
    """Relative errors by quantity, over stacks and blocks; where both are 0 the error is 0."""
    found = defaultdict(list)
    for stack, quantities in predicted.items():
        for name, expected in quantities.items():
            got = measured[stack][name]
            off = np.abs(expected - got)
            found[name].append(np.divide(off, got, out=np.where(off > 0, np.inf, 0.0), where=got > 0))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _measure_one(network: Network, variant: str, seed: int) -> Table:
    torch.manual_seed(seed)
    model = Transformer(
        variant if network.centered else f"{variant}/rmsnorm",
        kind=network.kind,
        vocab=network.outputs,
        width=network.width,
        ffn=network.ffn,
        blocks=network.blocks,
        heads=_HEADS,
        activation=network.activation,
        dropout=network.dropout,
        max_length=64,
    )
    source, tokens, labels = (
        torch.randint(network.outputs, (network.sequences, length))
        for length in (network.source_length, network.length, network.length)
    )
    found: Table = defaultdict(lambda: defaultdict(list))
    for stack, blocks in _stacks(model):
        for block in blocks:
            _watch_stream(block, found[stack]["stream"])
    logits = model(source, tokens) if network.kind == "encoder-decoder" else model(tokens)
    F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=network.smoothing).backward()
    for stack, blocks in _stacks(model):
        for block in blocks:
            for name, parameter in block.named_parameters():
                found[stack][name].append(float(parameter.grad.norm()))
    return found


def _stacks(model: Transformer) -> list[tuple[str, nn.ModuleList]]:
    return [
        (path.rpartition("blocks")[0].rstrip("."), module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
    ]


def _watch_stream(block: nn.Module, into: list[float]) -> None:
    """Note the stream's second moment where it leaves the block, before a norm that ends the block."""

    def note(x: Tensor) -> None:
        into.append(float(x.detach().square().mean()))

    if block.placements.get("ffn_norm") == "post_add":
        block.ffn_norm.register_forward_pre_hook(lambda _module, args: note(args[0]))
    else:
        block.register_forward_hook(lambda _module, _args, out: note(out))
