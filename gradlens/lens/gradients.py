"""What the parameters' gradients are now: known by identity and version, without a look at a number."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from gradlens.lens.world import distributed, local, sharded_groups

#: Identity and version of each tensor, None where there is none.
Marks: TypeAlias = tuple[tuple[int, int] | None, ...]
#: Gradients are looked at in so many parameters where not all need be seen.
FEW = 8


class State(NamedTuple):
    """The gradients at one moment.

    Attributes:
        grads: of the parameters.
        waiting: what FSDP keeps to itself while it is told not to exchange gradients.
        weights: versions of the parameters themselves.
    """

    grads: Marks
    waiting: Marks
    weights: tuple[int, ...]

    def filled(self, before: "State") -> set[int | None]:
        """Return the parameters whose gradient was changed since, None for what is not seen in a parameter.

        That is a gradient that waits in FSDP, or one that an optimizer has used inside of the backward pass.
        """
        found: set[int | None] = {
            index
            for index, (was, now) in enumerate(zip(before.grads, self.grads, strict=False))
            if now != was and now is not None
        }
        waits = before.waiting != self.waiting and any(mark is not None for mark in self.waiting)
        return found | {None} if waits or before.weights != self.weights else found


class Gradients:
    """The gradients of a model's parameters.

    Args:
        model: any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._look()

    def _look(self) -> None:
        named = list(self._model.named_parameters())
        self.names, self._parameters = [name for name, _ in named], [parameter for _, parameter in named]
        # Inference tensors have no version, and do not change.
        self._weights = [parameter for parameter in self._parameters if not parameter.is_inference()]
        self._modules = list(self._model.modules())
        self._held: list[dict[str, Any]] = [
            held for module in self._modules for held in (module._parameters, module._modules)
        ]
        self._there = self._holdings()
        self._sharded = [group for module in self._modules for group in sharded_groups(module)]

    def _holdings(self) -> list[int]:
        """What the known modules hold: whatever is new hangs on one of them. To walk over a model takes longer."""
        return [*map(id, chain.from_iterable(map(dict.values, self._held)))]

    def replaced(self) -> bool:
        """Take the parameters that the model has now; return whether they are others than before."""
        # FSDP replaces parameters itself for the time of a pass.
        other = not distributed() and self._there != self._holdings()
        if other:
            self._look()
        return other

    def state(self) -> State:
        """Return what the gradients are now."""
        return State(
            _marks([parameter.grad for parameter in self._parameters]),
            _marks(list(self._waiting())),
            tuple([parameter._version for parameter in self._weights]),
        )

    def _waiting(self) -> Iterator[Tensor | None]:
        for group in self._sharded:
            if not group.reduce_grads:
                for parameter in group.fsdp_params:
                    yield parameter.unsharded_accumulated_grad
                    yield getattr(getattr(parameter, "_unsharded_param", None), "grad", None)

    def few(self, grads: Marks) -> list[int]:
        """Return a few of the parameters that have a gradient: from all over the model, of the smaller half."""
        held = [index for index, grad in enumerate(grads) if grad is not None]
        held.sort(key=lambda index: self._parameters[index].numel())
        small = sorted(held[: max(FEW, len(held) // 2)])
        return small[:: max(1, -(-len(small) // FEW))]

    def any_entry(self, index: int) -> Tensor:
        """Return whether a gradient has an entry that is not zero, on its device: nobody waits for it."""
        grad: Any = local(self._parameters[index].grad)
        with torch.no_grad():
            entries: Tensor = grad.detach()._values() if grad.is_sparse else grad.detach()
            return entries.count_nonzero() > 0


def read(flags: dict[int, Tensor]) -> dict[int, bool]:
    """Copy flags to the host, one copy a device."""
    devices: dict[torch.device, list[int]] = defaultdict(list)
    for index, flag in flags.items():
        devices[flag.device].append(index)
    found: dict[int, bool] = {}
    for indices in devices.values():
        found |= zip(indices, torch.stack([flags[index] for index in indices]).tolist(), strict=True)
    return found


def _marks(tensors: list[Tensor | None]) -> Marks:
    return tuple([None if tensor is None else (id(tensor), tensor._version) for tensor in tensors])
