"""Names of places in a network: the block that a fault is planted in, its branches, norms and matrices."""

from typing import Any

from torch import nn

from tests.calibration.faults.kind import Planted


def block(planted: Planted) -> str:
    """Return the path of the block that faults are planted in: that in the middle."""
    return f"blocks.{index(planted)}"


def index(planted: Planted) -> int:
    """Return its index."""
    return {"gpt": 2, "dense": 4}.get(planted.run.network.name, 2)


def of(model: Any, path: str) -> Any:
    """Return a module by its path."""
    found: nn.Module = model.get_submodule(path)
    return found


def branches(model: Any, path: str) -> list[nn.Module]:
    """Return the branches of a block."""
    one = of(model, path)
    return [getattr(one, name) for name in one.branches]
