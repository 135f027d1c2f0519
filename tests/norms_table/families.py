"""One family of transformers under the lens: every module of it that normalizes, against a formula that is proved.

Which formula a class has is not looked up by its name: each of a few that were written by hand is put to the proof on
the module's own call, and the first that gives its output and its gradient is the one.
"""

import copy
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tests.norms_table import small
from tests.norms_table.formula import Call, Formula, UnprovedError, expected
from tests.norms_table.judge import judge
from tests.norms_table.kinds import CHANNELS, LAYER, OF_TORCH, RMS, of_torch, unit


def _eps(module: nn.Module, *_: Any) -> float:
    names = ("eps", "variance_epsilon", "epsilon", "norm_eps", "layer_norm_eps")
    return next(
        (float(getattr(module, name)) for name in names if isinstance(getattr(module, name, None), float)), 1e-5
    )


def _silu(gate: Tensor) -> Tensor:
    return gate * torch.sigmoid(gate)


def _groups(module: nn.Module, *_: Any) -> int:
    size, width = getattr(module, "group_size", None), module.weight.numel()
    return int(width // size) if size else int(getattr(module, "n_groups", 1))


_RMS = replace(RMS, eps=_eps)
_GATED = replace(_RMS, groups=_groups)
#: Calls with one tensor, and those with a gate besides.
PLAIN = (
    _RMS,
    replace(_RMS, offset=1.0),
    replace(LAYER, eps=_eps),
    replace(LAYER, eps=_eps, offset=1.0),
    replace(CHANNELS, eps=_eps),
    replace(_RMS, before=lambda module, x: x * (1 + module.weight), gain=None),
    replace(_RMS, gain="scale"),
    replace(_RMS, gain="gamma"),
    unit("weight"),
    unit(),
)
GATED = (
    replace(_GATED, before=lambda module, x, gate: x * _silu(gate)),
    replace(_GATED, gate=lambda module, gate: _silu(gate)),
    replace(_GATED, gate=lambda module, gate: torch.sigmoid(gate)),
    replace(_GATED, offset=1.0, gate=lambda module, gate: _silu(gate)),
)


class Proved(Formula):
    """The first of the formulas above that is what a class computes; found at its first call, once a class."""

    known: ClassVar[dict[type[nn.Module], Formula]] = {}
    #: Classes without parameters that are none of them: activations, positions, paths that are dropped.
    others: ClassVar[set[type[nn.Module]]] = set()

    def of(self, call: Call) -> Formula:
        """Return the formula of a call.

        Raises:
            UnprovedError: none is.
        """
        cls = type(call.module)
        if cls in OF_TORCH:
            return of_torch(call.module)
        if cls in self.others:
            raise UnprovedError(cls.__name__)
        tensors = [value for value in (*call.further, *call.keywords.values()) if isinstance(value, Tensor)]
        base = [formula for formula in [of_torch_subclass(call.module)] if formula is not None]
        tried = [self.known[cls]] if cls in self.known else []
        for formula in (*tried, *base, *(GATED if tensors else ()), *PLAIN):
            try:
                expected(formula, call)
            except Exception:  # whatever a formula that is not the class's may run into
                continue
            self.known[cls] = formula
            return formula
        if next(call.module.parameters(), None) is None and "norm" not in cls.__name__.lower():
            self.others.add(cls)
        raise UnprovedError(cls.__name__)


def of_torch_subclass(module: nn.Module) -> Formula | None:
    """Return the formula of the class of torch that a class is derived from, if it is."""
    return next((OF_TORCH[base] for base in type(module).__mro__ if base in OF_TORCH), None)


def candidates(model: nn.Module) -> dict[str, Formula]:
    """Return the modules of a model that may be norms: torch's, leaves that are not torch's, and what is called one."""
    found: dict[str, Formula] = {}
    seen: set[nn.Module] = set()
    for path, module in model.named_modules():
        called = _called_one(module) and not any(_called_one(inside) for inside in list(module.modules())[1:])
        leaf = next(module.children(), None) is None and not type(module).__module__.startswith("torch.nn")
        if path and (type(module) in OF_TORCH or leaf or called) and module not in seen:
            found[path] = Proved()
            seen.add(module)
    return found


def _called_one(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def randomized(model: nn.Module) -> nn.Module:
    """Add numbers of -0.2 to 0.4 to the vectors of what may be a norm, for ones and zeros hide what is done."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for path in candidates(model):
            for parameter in model.get_submodule(path).parameters(recurse=False):
                if parameter.dim() == 1 and parameter.is_floating_point():
                    drawn = torch.rand(parameter.shape, generator=generator)
                    parameter.add_(0.6 * drawn - 0.2)
    return model


def family(model_type: str) -> dict[str, Any]:
    """Return what came of a family: its outcome, what was said, and each site that is not right."""
    try:
        config, given = small.runnable(model_type)
    except small.NotBuiltError as error:
        return {"outcome": "not built", "said": str(error), "sites": 0, "others": {}}
    found = judge(
        lambda: randomized(small.build(copy.deepcopy(config))),
        lambda model: small.loss(model, copy.deepcopy(given)),
        candidates,
    )
    whole = found.pop("")
    if whole.outcome in ("refused", "crash"):
        return {"outcome": whole.outcome, "said": whole.said, "sites": 0, "others": {}}
    sites = {path: verdict for path, verdict in found.items() if verdict.outcome != "none"}
    others = {path: [verdict.outcome, verdict.said] for path, verdict in sites.items() if verdict.outcome != "right"}
    worst = next((o for o in ("wrong", "silent", "named") if any(v.outcome == o for v in sites.values())), "right")
    return {"outcome": worst, "said": whole.said, "sites": len(sites), "others": others}
