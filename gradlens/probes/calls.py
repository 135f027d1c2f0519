"""What goes into and comes out of some of a model's modules, in one forward pass that leaves no trace."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.batches import blaming
from gradlens.errors import ModelError, UnknownNameError
from gradlens.outputs import tensors_of
from gradlens.probes.generators import seeded


@dataclass(frozen=True)
class Call:
    """The first call of a module in a pass.

    Attributes:
        site: the module's path; empty for the model.
        module: called.
        arguments: positional ones.
        keywords: the others.
        output: the first floating tensor that it returned, but for single numbers such as a loss.
    """

    site: str
    module: nn.Module
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    output: Tensor


def first_calls(
    model: nn.Module,
    batch: Any,
    sites: Iterable[str],
    *,
    parameters: Mapping[str, Tensor] | None = None,
    optional: Iterable[str] = (),
    seed: int = 0,
) -> list[Call]:
    """Run the model once without gradients, and return the first call of each of the modules.

    Args:
        model: its buffers are replaced by copies, its random numbers seeded; never changed.
        batch: what its forward takes.
        sites: paths of modules, empty for the model itself.
        parameters: those to use in place of the model's own.
        optional: paths of further modules, left out where they do not run; they come after the others.
        seed: of the random numbers.

    Raises:
        UnknownNameError: there is no such module.
        ModelError: the model does not run, or one of the modules does not run or gives no tensor.
    """
    modules = dict(model.named_modules())
    seen: dict[str, tuple[Any, ...]] = {}
    optional = list(optional)
    sites = [*sites, *optional]
    state = {name: buffer.clone() for name, buffer in model.named_buffers()} | dict(parameters or {})
    given = ((), dict(batch)) if isinstance(batch, Mapping) else (batch if isinstance(batch, tuple) else (batch,), {})
    with ExitStack() as stack:
        for site in sites:
            if site not in modules:
                raise UnknownNameError("module in the model", site, modules)

            def keep(module: nn.Module, args: Any, kwargs: Any, output: Any, site: str = site) -> None:
                seen.setdefault(site, (args, kwargs, output))

            stack.callback(modules[site].register_forward_hook(keep, with_kwargs=True).remove)
        stack.enter_context(blaming(model, batch))
        stack.enter_context(seeded(seed, model.parameters()))
        stack.enter_context(torch.no_grad())
        torch.func.functional_call(model, state, *given)
    calls = []
    for site in sites:
        if site in optional and site not in seen:
            continue
        output = next((t for t in tensors_of(seen[site][2]) if t.dim()), None) if site in seen else None
        if output is None:
            raise ModelError(
                f"A probed module must run and give a tensor; {site or type(model).__name__!r} "
                f"{'gave ' + type(seen[site][2]).__name__ if site in seen else 'did not run'}. Name another."
            )
        calls.append(Call(site, modules[site], seen[site][0], seen[site][1], output))
    return calls


def stacks(model: nn.Module) -> list[str]:
    """Return the paths of the blocks: the members of each outermost list of two or more composed modules of a class.

    Empty where there is no such list.
    """
    found: list[str] = []
    for path, module in model.named_modules():
        members = dict(module.named_children()) if isinstance(module, nn.ModuleList | nn.Sequential) else {}
        alike = len(members) > 1 and len({type(member) for member in members.values()}) == 1
        composed = all(next(member.children(), None) is not None for member in members.values())
        if alike and composed and not any(path.startswith(f"{block}.") for block in found):
            found += [f"{path}.{name}" if path else name for name in members]
    return found


def stacked(model: nn.Module) -> list[str]:
    """Return the paths of the blocks, as ``stacks``, of a model that must have some.

    Raises:
        ModelError: it has none.
    """
    found = stacks(model)
    if not found:
        raise ModelError(
            f"The blocks of a model are a list of two or more modules of one class; {type(model).__name__} has none. "
            "Name the modules to look at."
        )
    return found
