"""What a site still has to prove, and what becomes of it.

A norm's first recorded call is held against the formula that it is taken for (``recognition.proof``): the output at
once, the gradient in the first backward pass. A site that fails writes no rows, and the audit says what failed. A
module that is taken for nothing yet is looked at in its first call and then, if it is no norm, left alone. What was
told from one call alone, or depends on other tensors of the call, proves itself in every recorded call; that verdict
waits on the device for the step's end.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gradlens.lens.hooks import is_batched
from gradlens.lens.world import local, placements
from gradlens.recognition.behaviour import Seen, all_axes, best, fits, layouts, over, spelled_out
from gradlens.recognition.kinds import Gate, NormKind
from gradlens.recognition.known import Taken
from gradlens.recognition.likeness import is_affine, likeness, uses
from gradlens.recognition.proof import Backward, Forward, off
from gradlens.recognition.samples import LEAST_VECTORS

#: Calls that told nothing (linear as far as they go, or without a gradient) before a module counts as what it seems.
_LOOKS = 20


class Call:
    """One call that has something to prove: what was taken of its input, then of its gradients."""

    def __init__(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], key: object, training: bool) -> None:
        self.x, self.args, self.kwargs, self.key = local(x.detach()), args, kwargs, key
        self.training = training
        self.version = None if x.is_inference() else self.x._version
        self.forward: Forward | None = None
        self.backward: Backward | None = None
        #: The tensor that it is multiplied by besides.
        self.gate: Tensor | None = None
        #: Input and output with their graphs, where there is one.
        self.handed_on: Tensor | None = None
        self.output: Tensor | None = None
        #: Whether its verdict waits for the end of the step, and whether it is no news but must be asked each time.
        self.later = self.again = False
        self.on_verdict: Callable[[Call], None] = lambda call: None

    def hold(self, kind: NormKind, module: nn.Module, turn: int = 0) -> None:
        """Take a sample, to hold what comes against this kind."""
        self.gate = None if kind.gate is None else kind.gate.value(self.args, self.kwargs)
        self.forward = Forward(kind, module, self.x, self.gate, turn)

    @property
    def uses(self) -> int:
        """How often the input went into the output; 0 where nothing shows it."""
        return 0 if self.handed_on is None or self.output is None else uses(self.handed_on, self.output)

    def tensors(self) -> list[Tensor]:
        """Return the tensors that the call was given."""
        return [one.detach() for one in (*self.args[1:], *self.kwargs.values()) if isinstance(one, Tensor)]

    def release(self) -> None:
        """Let go of the input: of all but the sample."""
        self.x, self.args, self.kwargs = self.x.new_empty(0), (), {}
        self.handed_on = self.output = None

    @property
    def untouched(self) -> bool:
        """Whether the input is still what it was."""
        return self.version is not None and self.x._version == self.version

    def grad_output(self, grad: Tensor) -> None:
        """Hand on a gradient."""
        if self.backward is not None and not is_batched(grad):
            self.backward.grad_output(local(grad))

    def grad_input(self, grad: Tensor) -> None:
        """Hand on a gradient, and have it judged."""
        if self.backward is not None and not is_batched(grad) and self.backward.grad_input(local(grad)):
            self.on_verdict(self)


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
        #: What waits for the end of a step: the call, whether it is its gradient or output, by how much that is off.
        self._waiting: list[tuple[Call, bool, Tensor]] = []

    @property
    def proved(self) -> bool:
        """Whether some call has shown that it is of its kind."""
        return bool(self._forward)

    def begin(self, module: nn.Module, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Begin a call; None where it has nothing to prove."""
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
        call = Call(x, args, kwargs, key, module.training)
        call.again = done and not graph
        # A class of torch's is hardly ever refuted: its verdict need not stop the host.
        call.later = call.again or self.taken.by == "class"
        if self.kind is not None:
            if is_parametrized(module):
                return None  # to look at its parameters would run what makes them once more
            with suppress(RuntimeError, ValueError, IndexError):  # it cannot be that, on this input
                call.hold(self.kind, module, self._tries)
        return call

    def end(self, module: nn.Module, call: Call, output: Tensor | None) -> bool:
        """Look at the output of a call; return whether the call can be recorded."""
        self.seen, call.output = True, output
        y = None if output is None else local(output.detach())
        if y is None or y.shape != call.x.shape:
            self._give_up("its output is not of its input's size" if self.kind is not None else "")
            return False
        if not call.untouched:  # its moments would be those of what it left
            self._give_up("it changes its input in place" if self.kind is not None else "")
            return False
        if call.forward is not None and call.later:
            self._waiting.append((call, False, call.forward.error(y)))
        elif not self._holds(module, call, y):
            return False
        if call.forward is not None and not call.again:
            self._forward.add(call.key)
            call.backward = Backward(call.forward, free=self.taken.by not in ("class", "declaration"))
        return True

    def _holds(self, module: nn.Module, call: Call, y: Tensor) -> bool:
        """Whether the output is that of the kind, or of one that is found."""
        error = math.inf if call.forward is None else float(call.forward.error(y))
        if math.isnan(error):  # nothing in it can tell
            self._tries += 1
            call.forward = None
            return True
        allowed = 0.0 if call.forward is None else call.forward.tolerance
        return error <= allowed or self._found(module, call, y, error)

    def judge(self, call: Call) -> None:
        """Take the verdict on the gradient of a call, or have it wait for the end of the step."""
        assert call.backward is not None
        if call.later:
            self._waiting.append((call, True, call.backward.errors[0]))
        else:
            self._judge(call, [float(error) for error in call.backward.errors])

    def _judge(self, call: Call, errors: list[float]) -> None:
        proof = call.backward
        assert proof is not None
        found = next((kind for kind, e in zip(proof.kinds, errors, strict=True) if e <= proof.tolerance), None)
        if found is not None:
            self.kind = found
            self._backward.add(call.training)
        elif math.isnan(errors[0]):
            self._tries += 1
            if self._tries > _LOOKS:
                self._backward.add(call.training)
        else:
            self._give_up(f"its output is that of its formula, but its gradient is not: off by {off(min(errors))}")

    def settle(self) -> bool:
        """Return whether what the calls of this step had to prove is proved; asked once, at its end."""
        if not self._waiting:
            return not self.refuted
        waiting, self._waiting = self._waiting, []
        errors = torch.stack([error.float() for *_, error in waiting]).tolist()
        for (call, of_gradient, _), error in zip(waiting, errors, strict=True):
            assert call.forward is not None
            if of_gradient:
                self._judge(call, [error])
            elif math.isnan(error):
                self._tries += 1
                self._forward.discard(call.key)
            elif error > call.forward.tolerance and call.again:
                self._forward.clear()
                self.note = (
                    "in some step its output was not what its earlier calls had shown: rows of such steps are left out"
                )
                return False
            elif error > call.forward.tolerance:
                assert self.kind is not None
                self._give_up(f"its output is not that of a {self.kind.name}: off by {off(error)}")
                return False
        return not self.refuted

    # ------------------------------------------------------------------ finding out

    def _found(self, module: nn.Module, call: Call, y: Tensor, error: float) -> bool:
        """Search for what gives this output, and take it for that; give up where nothing does."""
        seen, told = Seen(call.x, y, self._gates(call)), self.taken.told
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
                self._dismiss(module, seen, every, call, error)
                return False
        if kind is None:
            unsure = self.kind is None and self._tries < _LOOKS
            if unsure and next(fits(module, [seen], every, least=LEAST_VECTORS), None) is not None:
                self._tries += 1  # a norm or a linear map: this input cannot tell
            else:
                self._dismiss(module, seen, every, call, error)
            return False
        call.hold(kind, module)
        assert call.forward is not None
        missed = float(call.forward.error(y))
        if not missed <= call.forward.tolerance:
            self._give_up(f"its output is off by {off(missed)} of what its formula gives")
            return False
        if told is not None and not as_said:
            self.note = f"it was said to normalize over {over(told)}; it does, and is recorded, over {over(kind)}"
        elif self.kind is None and not self.taken.likely:
            self.note = "its first call showed that it is a norm: its rows begin with the call after that"
        self.kind, self._alone = kind, True
        return True

    def _dismiss(self, module: nn.Module, seen: Seen, kinds: list[NormKind], call: Call, error: float) -> None:
        """Say why a module is not recorded, if it seems to be a norm at all."""
        like = likeness(module, seen, kinds, call.tensors())
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
        elif (
            self.taken.named
            and not any(part._parameters for part in list(module.modules())[1:])
            and (call.uses > 1 or not is_affine(seen))
        ):
            self._give_up(
                "it is called a norm, and its output is x̂ with a gain and a bias over no axes that were tried. "
                "If it is over others, name them with gradlens.register_norm"
            )
        elif self.taken.named and type(module).__module__.startswith("torch.nn."):
            self._give_up("no formula that is known gives its output")  # LocalResponseNorm
        else:
            self._give_up("")

    def _give_up(self, why: str) -> None:
        self.refuted, self.over, self._settled = why, True, None
        if not why:
            self.kind = None

    # ------------------------------------------------------------------ other tensors of a call

    def _gates(self, call: Call) -> tuple[tuple[Gate, Tensor], ...]:
        """Return the tensors of a call that may be gates: of the input's shape."""
        named = dict(zip(self._names[1:], call.args[1:], strict=False)) | call.kwargs
        return tuple(
            (Gate(self._names.index(name), name, "", first=False), value.detach())
            for name, value in named.items()
            if isinstance(value, Tensor) and value.is_floating_point() and value.shape == call.x.shape
            and name in self._names[1:]
        )  # fmt: skip


def _brief(value: Any) -> object:
    """Return what a further argument changes in what there is to prove."""
    return value if value is None or isinstance(value, bool | int | float | str) else type(value)
