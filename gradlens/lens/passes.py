"""Which passes a step consists of.

The one definition: the rows of a step are of exactly those passes that make up the gradient which the step's last
backward pass left in the parameters. Micro-batches that accumulate all count; what was zeroed before that does not.

A backward pass is known by what it changed in the parameters' gradients between its begin and its end. What changed
between two passes somebody else did: a gradient that is gone, or is all zeros, was thrown away. A forward pass belongs
to the backward passes that went through it, if only through one of its hooks. Who counts is known when the step ends.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from gradlens.lens.gradients import FEW, Gradients, State, read
from gradlens.lens.hooks import inside_backward

#: Why a backward pass is left out.
NOTHING, ZEROED, RAISED, PAUSED = "nothing", "zeroed", "raised", "paused"


@dataclass(eq=False)
class Forward:
    """A forward pass: a call of the model, or of a part of it that nothing of the model's own calls.

    Attributes:
        after: the number of the backward pass that begins next when it begins.
        failed: whether it raised.
        returned: whether a backward pass went through it.
        free: whether nothing that it returned needs a gradient: no backward pass can tell that it used it.
    """

    after: int = 0
    failed: bool = False
    returned: bool = False
    free: bool = False


@dataclass(eq=False)
class Pass:
    """A backward pass.

    Attributes:
        number: of all passes of the lens.
        paused: whether it ran where the lens was told to look away.
        graph: whether it made a graph of its own gradients (``create_graph``).
        ended: whether it came to its end.
        forwards: the forward passes that it went through.
        near: the last forward pass before it, where a compiled graph cannot tell which it was.
        filled: the parameters whose gradient it changed; None for what waits elsewhere.
        gone: the parameters whose gradient was thrown away since the pass before.
        doubtful: those whose gradient was changed: it is gone where it was all zeros when the pass began.
        before: the gradients when it began.
    """

    number: int
    paused: bool
    graph: bool = False
    ended: bool = False
    forwards: set[Forward] = field(default_factory=set)
    near: Forward | None = None
    filled: set[int | None] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    doubtful: dict[int, Tensor] = field(default_factory=dict)
    before: State | None = None

    def thrown_away(self) -> set[int]:
        """Return the parameters whose gradient was gone when the pass began; looks at the device where it must."""
        kept = read(self.doubtful)
        return self.gone | {index for index, any_entry in kept.items() if not any_entry}


@dataclass(frozen=True)
class Counted:
    """Which passes of a step count.

    Attributes:
        numbers: of the backward passes that do, in order.
        forwards: the forward passes that they went through.
        seen: whether a backward pass was seen at all.
        left_out: reason to how many backward passes were left out for it.
        visible: whether a gradient was seen in the parameters; without one, all passes count that came to their end.
        older: the parameters, of a few, whose gradient also holds what was there before the step's first pass; None
            where nobody could tell.
        zeroed: others, of a few, whose gradient was not there then, or 0.
    """

    numbers: tuple[int, ...] = ()
    forwards: frozenset[Forward] = frozenset()
    seen: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    visible: bool = True
    older: tuple[str, ...] | None = None
    zeroed: tuple[str, ...] = ()

    def counts(self, forward: Forward) -> bool:
        """Whether the rows of a forward pass are the step's. Where no backward pass was seen, nobody can tell."""
        if forward.failed or not self.seen:
            return not forward.failed
        return forward in self.forwards or (forward.free and any(n >= forward.after for n in self.numbers))

    def before(self, forward: Forward) -> int:
        """Return how many of the passes that count had ended when a forward pass began."""
        return sum(number < forward.after for number in self.numbers)


class Passes:
    """Sees the backward passes of a model, and says at the end of each step which of them it consists of.

    Args:
        model: any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._gradients = Gradients(model)
        #: The number of the next pass.
        self.next = 0
        #: Called when the model has other parameters than before.
        self.on_replaced: Callable[[], None] = lambda: None
        self._step: list[Pass] = []
        #: By autograd's number of what runs: a reentrant checkpoint runs a part of a pass by itself.
        self._running: dict[int, Pass] = {}
        #: The gradients when the last pass of the step ended.
        self._last: State | None = None
        #: Gradients that were there when the step's first pass that filled any began: whether an entry is not zero.
        self._older: dict[int, Tensor] | None = None
        #: All parameters that had one then.
        self._held: set[int] = set()

    # ------------------------------------------------------------------ what the hooks tell

    def running(self, task: int) -> Pass | None:
        """Return the pass that a graph task belongs to; None where it begins one."""
        known = self._running.get(task)
        if known is None and self._running and inside_backward():
            known = self._running[task] = next(reversed(self._running.values()))
        return known

    def begin(self, task: int, paused: bool, whole: bool) -> Pass:
        """Begin a pass.

        Args:
            task: of autograd.
            paused: whether it is to be left out.
            whole: whether it begins at an output: no parameter of what comes before has its gradient yet.
        """
        if self._gradients.replaced():
            self._last = None
            self.on_replaced()
        now = self._gradients.state()
        one = self._running[task] = Pass(self.next, paused, before=now)
        self.next += 1
        if self._last is not None and self._last.grads != now.grads:
            for index, (was, is_) in enumerate(zip(self._last.grads, now.grads, strict=True)):
                if was is not None and is_ is None:
                    one.gone.add(index)
                elif was is not None and is_ != was:
                    one.doubtful[index] = self._gradients.any_entry(index)
        if whole and all(other.ended and not other.filled for other in self._step):
            self._older = {index: self._gradients.any_entry(index) for index in self._gradients.few(now.grads)}
            self._held = {index for index, mark in enumerate(now.grads) if mark is not None}
        self._step.append(one)
        return one

    def end(self, one: Pass) -> bool:
        """End a pass; return whether it filled the gradient of a parameter."""
        self._running = {task: other for task, other in self._running.items() if other is not one}
        now = self._gradients.state()
        if one.before is not None:
            one.filled = now.filled(one.before)
        one.ended, one.before, self._last = True, None, now
        return any(index is not None for index in one.filled)

    # ------------------------------------------------------------------ the end of a step

    def close(self) -> Counted:
        """Say which passes of the step count, and begin the next step."""
        step, asked, held = self._step, self._older, self._held
        older = {index for index, there in read(asked or {}).items() if there}
        self._step, self._last, self._older, self._running = [], None, None, {}
        left_out: dict[Pass, str] = {}
        #: Passes whose gradient is there still, with the parameters it is in.
        there: dict[Pass, set[int | None]] = {}
        thrown_away: set[int] = set()
        for one in step:
            thrown_away |= one.thrown_away()
            if one.paused or not one.ended or not one.filled:
                left_out[one] = PAUSED if one.paused else NOTHING if one.ended else RAISED
                continue
            for earlier, left in list(there.items()):
                left -= thrown_away
                if not left:
                    left_out[earlier] = ZEROED
                    del there[earlier]
            older -= thrown_away
            thrown_away = set()
            there[one] = set(one.filled)
        counted, visible = list(there), bool(there)
        if not visible:
            counted = [one for one, why in left_out.items() if why == NOTHING]
        for one in reversed(step):
            # Gradients that were differentiated in turn are a part of what that gave.
            if one.graph and one not in counted and any(one.forwards & other.forwards for other in counted):
                counted.append(one)
        counted.sort(key=lambda one: one.number)
        new = {index for one in counted for index in one.filled if index is not None and index not in held}
        return Counted(
            tuple(one.number for one in counted),
            frozenset(forward for one in counted for forward in (*one.forwards, one.near) if forward is not None),
            seen=bool(step),
            left_out=Counter(why for one, why in left_out.items() if one not in counted),
            visible=visible or not step,
            older=self._named(older) if visible and asked is not None else None,
            zeroed=self._named((set(asked or ()) - older) | new),
        )

    def _named(self, indices: Iterable[int]) -> tuple[str, ...]:
        """Return the names of the first few parameters."""
        return tuple(self._gradients.names[index] for index in sorted(indices)[:FEW])
