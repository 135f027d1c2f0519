"""Attention, where it is computed: torch's own function, and softmax over scores.

From the beginning of a recorded forward pass to the end of its backward pass these functions are wrapped where they are
looked up: in ``torch``, on ``Tensor`` (which ``F.softmax`` and ``nn.Softmax`` call), in ``torch.nn.functional``, and
under whatever names the files of the model's modules have imported them. A call is looked at and then made as it was.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlens.errors import GradlensError, one_line
from gradlens.lens import attention
from gradlens.lens.compiling import compiled_inside
from gradlens.lens.hook_state import HookState
from gradlens.lens.hooks import Hook, in_backward
from gradlens.lens.passes import Counted, Forward
from gradlens.lens.taps.output import on_host
from gradlens.lens.taps.scores import are_scores, heads_of, unreadable

_SDPA, _SOFTMAX = "scaled_dot_product_attention", "softmax"
_FUNCTIONS = {_SDPA: functional.scaled_dot_product_attention, _SOFTMAX: torch.softmax}
_ARGUMENTS = {
    _SDPA: ("query", "key", "value", "attn_mask", "dropout_p", "is_causal"),
    _SOFTMAX: ("input", "dim", "dtype"),
}
#: What the audit calls the whole of it.
_WATCH = "any attention"

_active: list["AttentionTap"] = []
#: What was replaced: owner, name, and what stood there; None where it was inherited.
_replaced: dict[tuple[int, str], tuple[Any, str, Any]] = {}


class _Seen(NamedTuple):
    """What a call left: its site, forward pass, and sums a head."""

    site: str
    forward: Forward
    sums: Tensor


class AttentionTap:
    """Looks at attention inside one model; it never raises into the model, and gives up where it fails.

    Args:
        model: the watched model.
        state: the lens' shared state.
    """

    def __init__(self, model: nn.Module, state: HookState) -> None:
        self.state = state
        #: Numbers of queries that were seen: how long the sequences are.
        self.lengths: set[int] = set()
        self.silent = False
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._homes = _homes(model)
        self._compiled = compiled_inside(model)
        self._seen: list[_Seen] = []
        self._steps = 0
        self.look = Hook(self._see, self.failed)

    def begin(self) -> None:
        """A forward pass that is recorded begins."""
        # A graph would be compiled again for the wrapped functions, and see nothing through them.
        if not (self.silent or self._compiled or self in _active):
            _active.append(self)
            _replace(self._homes)

    def end(self) -> None:
        """The backward pass has ended, or the lens is detached."""
        if self in _active:
            _active.remove(self)
            if not _active:
                _restore()

    def failed(self, error: Exception) -> None:
        """Give up, for something here raised."""
        if self.state.guard.strict:
            raise GradlensError(f"A hook of the lens failed at attention: {one_line(error)}.") from error
        self._cannot(_WATCH, f"a hook failed in step {self.state.step} ({one_line(error)}), and it is silent since")
        self.silent = True
        self.forget()

    def _cannot(self, site: str, why: str) -> None:
        self.state.observed.unsupported.setdefault(site or "the model's attention", why)

    # ------------------------------------------------------------------ a call

    def _see(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.silent or not self.state.recording or in_backward():
            return
        given = dict(zip(_ARGUMENTS[name], args, strict=False)) | kwargs
        if name == _SOFTMAX and not are_scores(given.get("input"), given.get("dim")):
            return
        owner = calling(self._paths)
        if owner is None:
            return
        path = self._paths[id(owner)]
        tensors: list[Any] = [
            given[one] for one in ("query", "key", "attn_mask", "input") if given.get(one) is not None
        ]
        if torch._C._functorch.get_interpreter_stack():
            self._cannot(path, "attention inside of a transform of torch.func")  # whose tensors do not outlive it
        elif why := unreadable(tensors):
            self._cannot(path, why)
        elif all(self.state.holds(path, one) for one in tensors) and self.state.records(path):
            with torch.no_grad(), torch.autocast(tensors[0].device.type, enabled=False):
                logits = self._logits(name, given, owner)
                self.lengths.add(tensors[0].shape[-2])
                self._seen.append(_Seen(path, self.state.forward, attention.sums(logits)))

    def _logits(self, name: str, given: dict[str, Any], owner: nn.Module) -> Tensor:
        if name == _SOFTMAX:
            return attention.sampled(given["input"], heads_of(owner, given["input"]))
        query = given["query"]
        causal, scale = bool(given.get("is_causal")), given.get("scale")
        return attention.logits_of(
            query, given["key"], given.get("attn_mask"), causal=causal, scale=scale, heads=heads_of(owner, query)
        )

    # ------------------------------------------------------------------ the end of a step

    def of_step(self, step: int, counted: Counted) -> dict[str, Any]:
        """Return the step's rows as stored columns; nothing where there are none. Begins the next step.

        Args:
            step: its number.
            counted: the passes that count.
        """
        seen = [one for one in self._seen if counted.counts(one.forward)]
        self.forget()
        self._steps += 1
        if not seen:
            if self._steps == 1:
                self._cannot(_WATCH, self._unseen())
            return {}
        numbers: Counter[tuple[str, int]] = Counter()
        sites: list[str] = []
        calls: list[int] = []
        for one in seen:
            # Those of a further micro-batch have the numbers of the same calls of the one before.
            key = one.site, counted.before(one.forward)
            sites += [one.site] * one.sums.shape[1]
            calls += [numbers[key]] * one.sums.shape[1]
            numbers[key] += 1
        sums = dict(zip(attention.SUMS, np.concatenate(on_host([one.sums for one in seen]), 1), strict=True))
        sums["logit_max"] = np.where(np.isfinite(sums["logit_max"]), sums["logit_max"], np.nan)
        return {
            "step": np.full(len(sites), step),
            "site": tuple(sites),
            "call": np.array(calls),
            "rank": np.full(len(sites), self.state.world.rank),
            "head": np.concatenate([np.arange(one.sums.shape[1]) for one in seen]),
            **sums,
            **{name: sums[name].astype(np.int64) for name in ("sampled", "queries")},
        }

    def forget(self) -> None:
        """Let go of what the step has left."""
        self._seen = []
        self.lengths.clear()

    def _unseen(self) -> str:
        what = "none was seen in the first recorded step"
        if self._compiled:
            return f"{what}: parts of the model are compiled; record it uncompiled"
        return f"{what}: it is compiled, or runs as a kernel of its own"


def calling(paths: Collection[int]) -> nn.Module | None:
    """Return the innermost module on the Python stack, if it is one of these, by identity; else the next around it."""
    frame = sys._getframe(1)
    while frame is not None:
        # Only of this frame, whose variables are what the module was given: to ask any other for its variables would
        # keep them alive until it returns.
        if frame.f_code is nn.Module._call_impl.__code__:
            owner = frame.f_locals["self"]
            if id(owner) in paths:
                module: nn.Module = owner
                return module
        frame = frame.f_back  # type: ignore[assignment]
    return None


# ------------------------------------------------------------------ the functions


def _homes(model: nn.Module) -> list[tuple[Any, str, str]]:
    """Return where the functions are looked up: owner, name there, and which it is."""
    found = [(functional, _SDPA, _SDPA), (torch, _SOFTMAX, _SOFTMAX), (Tensor, _SOFTMAX, _SOFTMAX)]
    files = {sys.modules.get(cls.__module__) for module in model.modules() for cls in type(module).__mro__}
    for file in files - {None, functional, torch}:
        for at, value in list(vars(file).items()):
            found += [(file, at, name) for name, function in _FUNCTIONS.items() if value is function]
    return found


def _replace(homes: list[tuple[Any, str, str]]) -> None:
    for owner, at, name in homes:
        if (id(owner), at) not in _replaced:
            _replaced[id(owner), at] = owner, at, vars(owner).get(at)
            setattr(owner, at, _wrapped(getattr(owner, at), name))


def _restore() -> None:
    for owner, at, before in _replaced.values():
        if before is None:
            delattr(owner, at)
        else:
            setattr(owner, at, before)
    _replaced.clear()


def _wrapped(original: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Tensor:
        if not torch.compiler.is_compiling():
            for tap in tuple(_active):
                tap.look(name, args, kwargs)
        return original(*args, **kwargs)

    return run
