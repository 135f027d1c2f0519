"""What a site still has to prove, and what becomes of it.

A norm's first recorded call is held against the formula that it is taken for (``recognition.proof``): the output at
once, the gradient in the first backward pass. A site that fails writes no rows, and the audit says what failed. A
module that is taken for nothing yet is looked at in its first call and then, if it is no norm, left alone. What was
told from one call alone, or depends on other tensors of the call, proves itself in every recorded call; that verdict
waits on the device for the step's end.
"""

import math
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gradlens.lens.taps.evidence import Evidence
from gradlens.lens.world import local, placements
from gradlens.recognition.behaviour import Seen, all_axes, best, fits, layouts, over, spelled_out
from gradlens.recognition.kinds import Gate, NormKind
from gradlens.recognition.known import Taken
from gradlens.recognition.likeness import is_affine, likeness
from gradlens.recognition.others import is_no_norm, is_other
from gradlens.recognition.proof import Backward, off
from gradlens.recognition.samples import LEAST_VECTORS

#: Calls that told nothing (linear as far as they go, or without a gradient) before a module counts as what it seems.
_LOOKS = 20


class Proving:
    """The proof of one site.

    Args:
        taken: what its module is taken for.
        names: names of the arguments of its forward.
    """

    def __init__(self, taken: Taken, names: list[str]) -> None:
        self.taken, self.kind = taken, taken.kind
        self._names = names
        #: Why nothing is recorded; empty where something is.
        self.refuted = ""
        #: Whether there is nothing more to look at: refuted, or no norm.
        self.over = False
        #: What was found out that the audit should say.
        self.note = ""
        #: Whether it ran where it could be looked at.
        self.seen = False
        self._forward: set[object] = set()
        self._backward: set[bool] = set()
        #: Mode and sizes of the last call that had nothing to prove: most calls are like it.
        self._settled: tuple[bool, torch.Size] | None = None
        self._alone = False
        self._tries = 0
        #: What waits for the end of the step: the call, whether its gradient (else its output), by how much it is off.
        self._waiting: list[tuple[Evidence, bool, Tensor]] = []

    @property
    def proved(self) -> bool:
        """Whether some call has shown that it is of its kind."""
        return bool(self._forward)

    def begin(self, module: nn.Module, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Evidence | None:
        """Begin a call: return what takes its evidence, None where it has nothing to prove."""
        if self._settled == (module.training, x.shape) and len(args) == 1 and not kwargs:
            return None
        if placements(x):
            return None  # a part of it, which others have the rest of
        more = args[1:] if len(args) > 1 else ()
        if len(kwargs) > (not args):
            more = (*more, *(value for name, value in kwargs.items() if args or name != self._names[0]))
        key: object = (module.training, x.dim(), tuple(size == 1 for size in x.shape) if 1 in x.shape else None)
        if more:
            key = (key, tuple(_brief(value) for value in more))
        further = any(isinstance(value, Tensor) for value in more)
        done = key in self._forward
        graph = torch.is_grad_enabled() and x.requires_grad and module.training not in self._backward
        if done and not graph and not further and not self._alone:
            if torch.is_grad_enabled() and x.requires_grad and not more:
                self._settled = (module.training, x.shape)
            return None
        evidence = Evidence(x, args, kwargs, key, module.training)
        evidence.again = done and not graph
        # A class of torch's is hardly ever refuted: its verdict need not stop the host.
        evidence.later = evidence.again or self.taken.by == "class"
        if self.kind is not None:
            if is_parametrized(module):
                return None  # to look at its parameters would run what makes them once more
            with suppress(RuntimeError, ValueError, IndexError):  # it cannot be that, on this input
                evidence.hold(self.kind, module, self._tries)
        return evidence

    def end(self, module: nn.Module, evidence: Evidence, output: Tensor | None) -> bool:
        """Look at the output of a call; return whether the call can be recorded."""
        self.seen, evidence.output = True, output
        y = None if output is None else local(output.detach())
        if y is None or y.shape != evidence.x.shape:
            self._give_up("its output is not of its input's size" if self.kind is not None else "")
            return False
        if not evidence.untouched:  # its moments would be those of what it left
            self._give_up("it changes its input in place" if self.kind is not None else "")
            return False
        if evidence.forward is not None and evidence.later:
            self._waiting.append((evidence, False, evidence.forward.error(y)))
        elif not self._holds(module, evidence, y):
            return False
        if evidence.forward is not None and not evidence.again:
            self._forward.add(evidence.key)
            evidence.backward = Backward(evidence.forward, free=self.taken.by not in ("class", "declaration"))
        return True

    def _holds(self, module: nn.Module, evidence: Evidence, y: Tensor) -> bool:
        """Whether the output is that of the kind, or of one that is found."""
        error = math.inf if evidence.forward is None else float(evidence.forward.error(y))
        if math.isnan(error):  # nothing in it can tell
            self._tries += 1
            evidence.forward = None
            return True
        allowed = 0.0 if evidence.forward is None else evidence.forward.tolerance
        return error <= allowed or self._found(module, evidence, y, error)

    def judge(self, evidence: Evidence) -> None:
        """Take the verdict on the gradient of a call, or have it wait for the end of the step."""
        assert evidence.backward is not None
        if evidence.later:
            self._waiting.append((evidence, True, evidence.backward.errors[0]))
        else:
            self._judge(evidence, [float(error) for error in evidence.backward.errors])

    def _judge(self, evidence: Evidence, errors: list[float]) -> None:
        proof = evidence.backward
        assert proof is not None
        found = next((kind for kind, e in zip(proof.kinds, errors, strict=True) if e <= proof.tolerance), None)
        if found is not None:
            self.kind = found
            self._backward.add(evidence.training)
        elif math.isnan(errors[0]):
            self._tries += 1
            if self._tries > _LOOKS:
                self._backward.add(evidence.training)
        else:
            self._give_up(f"its output is that of its formula, but its gradient is not: off by {off(min(errors))}")

    def settle(self) -> bool:
        """Return whether what the calls of this step had to prove is proved; asked once, at its end."""
        if not self._waiting:
            return not self.refuted
        waiting, self._waiting = self._waiting, []
        errors = torch.stack([error.float() for *_, error in waiting]).tolist()
        for (evidence, of_gradient, _), error in zip(waiting, errors, strict=True):
            assert evidence.forward is not None
            if of_gradient:
                self._judge(evidence, [error])
            elif math.isnan(error):
                self._tries += 1
                self._forward.discard(evidence.key)
            elif error > evidence.forward.tolerance and evidence.again:
                self._forward.clear()
                self.note = (
                    "in some step its output was not what its earlier calls had shown: rows of such steps are left out"
                )
                return False
            elif error > evidence.forward.tolerance:
                assert self.kind is not None
                self._give_up(f"its output is not that of a {self.kind.name}: off by {off(error)}")
                return False
        return not self.refuted

    # ------------------------------------------------------------------ finding out

    def _found(self, module: nn.Module, evidence: Evidence, y: Tensor, error: float) -> bool:
        """Search for what gives this output, and take it for that; give up where nothing does."""
        if self.kind is None and not self.taken.likely and is_other(module, evidence.x):
            self._give_up("")
            return False
        seen, told = Seen(evidence.x, y, self._gates(evidence)), self.taken.told
        name = type(module).__name__.lower()
        every = [*layouts(module, name), *all_axes(y.dim(), name)]
        kind = None if told is None else best(fits(module, [seen], [told], both=False))
        as_said = kind is not None
        if kind is None and self.taken.found is not None:
            kind = best(fits(module, [seen], [self.taken.found]))
        if kind is None:
            kind = best(fits(module, [seen], every, linear=False))
            # With a gain of one and no bias it may look like what its copy, with others, was not.
            if kind is not None and self.taken.odd and kind.gate is None and not spelled_out(module, kind):
                self._dismiss(module, seen, every, evidence, error)
                return False
        if kind is None:
            unsure = self.kind is None and self._tries < _LOOKS
            if unsure and next(fits(module, [seen], every, least=LEAST_VECTORS), None) is not None:
                self._tries += 1  # a norm or a linear map: this input cannot tell
            else:
                self._dismiss(module, seen, every, evidence, error)
            return False
        evidence.hold(kind, module)
        assert evidence.forward is not None
        missed = float(evidence.forward.error(y))
        if not missed <= evidence.forward.tolerance:
            self._give_up(f"its output is off by {off(missed)} of what its formula gives")
            return False
        if told is not None and not as_said:
            self.note = f"it was said to normalize over {over(told)}; it does, and is recorded, over {over(kind)}"
        elif self.kind is None and not self.taken.likely:
            self.note = "its first call showed that it is a norm: its rows begin with the call after that"
        self.kind, self._alone = kind, True
        return True

    def _dismiss(self, module: nn.Module, seen: Seen, kinds: list[NormKind], evidence: Evidence, error: float) -> None:
        """Say why a module is not recorded, if it seems to be a norm at all."""
        like = likeness(module, seen, kinds, evidence.tensors())
        if self.kind is not None:
            besides = f"; over {like} it looks normalized" if like else ""
            self._give_up(
                f"its output is not x̂ over {over(self.kind)} with gain and bias: off by {off(error)}{besides}"
            )
        elif like:
            self._give_up(
                f"its output looks normalized over {like}, but is not x̂ with a gain and a bias that are parameters of "
                "its own. If it is, name its axes with gradlens.register_norm"
            )
        elif self.taken.sizeless:
            self._give_up(
                "an input of any size gives the same output, so it seems to normalize, but it is x̂ with a gain "
                "and a bias over no axes that were tried. If it is over others, name them with gradlens.register_norm"
            )
        elif (
            self.taken.named
            and not any(part._parameters for part in list(module.modules())[1:])
            and (evidence.uses > 1 or not is_affine(seen))
        ):
            self._give_up(
                "it is called a norm, and its output is x̂ with a gain and a bias over no axes that were tried. "
                "If it is over others, name them with gradlens.register_norm"
            )
        elif self.taken.named and type(module).__module__.startswith("torch.nn."):
            self._give_up("no formula that is known gives its output")  # LocalResponseNorm
        else:
            self._give_up("")
            if not self.taken.likely:
                is_no_norm(module, evidence.x)

    def _give_up(self, why: str) -> None:
        self.refuted, self.over, self._settled = why, True, None
        if not why:
            self.kind = None

    # ------------------------------------------------------------------ other tensors of a call

    def _gates(self, evidence: Evidence) -> tuple[tuple[Gate, Tensor], ...]:
        """Return the tensors of a call that may be gates: of the input's shape."""
        named = dict(zip(self._names[1:], evidence.args[1:], strict=False)) | evidence.kwargs
        return tuple(
            (Gate(self._names.index(name), name, "", first=False), value.detach())
            for name, value in named.items()
            if isinstance(value, Tensor) and value.is_floating_point() and value.shape == evidence.x.shape
            and name in self._names[1:]
        )  # fmt: skip


def _brief(value: Any) -> object:
    """Return what a further argument changes in what there is to prove."""
    return value if value is None or isinstance(value, bool | int | float | str) else type(value)
