"""What all hooks of one lens share: whether this step is recorded, where rows live, who hears of backward's end."""

import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary, ref

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from gradlens.lens.guard import Guard
from gradlens.lens.hooks import at_end_of_backward, in_backward, regions
from gradlens.lens.moment_buffer import MomentBuffer
from gradlens.lens.observations import Observations
from gradlens.lens.passes import Forward, Pass, Passes
from gradlens.lens.placing import Placing
from gradlens.lens.world import World

if TYPE_CHECKING:
    from gradlens.lens.taps.attention import AttentionTap

_states: "WeakValueDictionary[int, HookState]" = WeakValueDictionary()
_numbers = itertools.count()
_GRAD = torch._C._functorch.TransformType.Grad


class HookState:
    """The shared state. ``recording`` is a plain bool: a compiled graph has one version with it and one without."""

    def __init__(
        self, world: World, device: torch.device, passes: Passes, placing: Placing, observed: Observations, guard: Guard
    ) -> None:
        self.recording = True
        #: Whether what costs more is read too, in a recorded step: in the first ones, and then in one of a few.
        self.closely = True
        #: Whether the lens is told to look away: it records nothing, and counts no step.
        self.paused = False
        self.world = world
        self.passes, self.placing = passes, placing
        self.guard = guard
        #: What hooks come across that the audit has to say.
        self.observed = observed
        #: The step's number.
        self.step = 0
        #: The lens, where it shall live as long as its hooks.
        self.lens: object = None
        #: Looks at attention; None where that is not watched.
        self.attention: AttentionTap | None = None
        #: Where the model was when the lens was attached; compiled graphs write there.
        self.device = device
        #: Whether the last thing that happened was the end of a backward pass.
        self.backward_over = False
        self.on_forward: Callable[[], None] = lambda: None
        #: Called when a forward pass has raised.
        self.on_failure: Callable[[], None] = lambda: None
        #: Called with the backward pass that ended, and whether it filled the gradient of a parameter.
        self.on_backward_end: Callable[[Pass, bool], None] = lambda one, filled: None
        self.buffers: dict[torch.device, MomentBuffer] = {}
        #: The last forward pass that began; of each thread the one that it is in, of which module, and evaluations.
        self._forward = Forward()
        self._thread = threading.local()
        self._number = next(_numbers)
        #: The graph into which the model's first hook was traced last, and what this state is called there: a text, as
        #: in ``compiling``.
        self.trace: object = None
        self.key = str(self._number)
        self._flag = torch.zeros((), device=device)
        self._extremes: tuple[ref[Tensor], int, tuple[Tensor, Tensor]] | None = None
        _states[self._number] = self

    def enter(self, module: nn.Module) -> bool:
        """Begin a call of the model or of a part; return whether nothing else of the model called it."""
        if getattr(self._thread, "outermost", None) not in (None, module):
            return False
        self._thread.outermost = module
        return True

    def leave(self, module: nn.Module) -> bool:
        """End a call of the model or of a part; return whether nothing else of the model called it."""
        if getattr(self._thread, "outermost", None) is not module:
            return False
        self._thread.outermost = None
        return True

    def begin_forward(self) -> None:
        """Begin a forward pass: the model was called, or a part of it or a site by somebody else."""
        self.backward_over = False
        self.on_forward()
        self._forward = self._thread.forward = Forward(self.passes.next)

    @property
    def forward(self) -> Forward:
        """The forward pass that this thread is in, or else the last one that began."""
        forward: Forward = getattr(self._thread, "forward", self._forward)
        return forward

    def evaluate(self, now: bool) -> None:
        """Say whether this thread runs an evaluation of the whole model, which is not recorded."""
        self._thread.evaluating = now

    @property
    def evaluating(self) -> bool:
        """Whether this thread runs an evaluation of the whole model."""
        return getattr(self._thread, "evaluating", False)

    def records(self, site: str) -> bool:
        """Whether a call that begins now is recorded, in eager mode."""
        if not self.recording or self.evaluating or torch._C._get_tracing_state() is not None:
            return False
        if self.backward_over and getattr(self._thread, "outermost", None) is None and not in_backward():
            self.begin_forward()
        transforms = torch._C._functorch.get_interpreter_stack()
        if forward_ad._current_level >= 0 or (transforms and any(one.key() != _GRAD for one in transforms)):
            self.observed.transformed.add(site)
            return False
        if not torch.is_grad_enabled() and not in_backward() and regions() == (None, None):
            self.observed.without_graph.add(site)
            return False
        return True

    def holds(self, site: str, x: Tensor) -> bool:
        """Whether an activation is this process's to record."""
        if self.world.holds(x):
            return True
        self.observed.elsewhere.add(site)
        return False

    def buffer(self, device: torch.device) -> MomentBuffer:
        """Return the device's row buffer, made on first use."""
        if device not in self.buffers:
            lengths = None if self.attention is None else self.attention.lengths
            self.buffers[device] = MomentBuffer(device, self.arm, lengths)
        return self.buffers[device]

    def arm(self, forward: Forward, whole: bool = False) -> Pass:
        """Return the backward pass that runs; when it begins, ask to be told of its end.

        Args:
            forward: the forward pass that it goes through.
            whole: whether it comes to an output of the model, or of a part.
        """
        task = torch._C._current_graph_task_id()
        one = self.passes.running(task)
        if one is None:
            one = self.passes.begin(task, self.paused, whole)
            one.graph = torch.is_grad_enabled()
            # Queued twice: DDP and FSDP finish their reductions in callbacks of the first round.
            at_end_of_backward(partial(at_end_of_backward, self.guard.around(partial(self._ended, one))))
        one.forwards.add(forward)
        forward.returned = True
        return one

    def _ended(self, one: Pass) -> None:
        self.backward_over = True
        self.on_backward_end(one, self.passes.end(one))

    def arm_output(self, forward: Forward, grad: Tensor) -> None:
        """Do as ``arm`` where the gradient of an output has come."""
        self.arm(forward, whole=True)

    def arm_near(self) -> None:
        """Do the same where nobody knows which forward pass it was."""
        one = self.arm(Forward(), whole=True)
        one.near = self._forward

    def arm_in_graph(self, grad: Tensor) -> None:
        """Do the same from inside a compiled graph, which can call operators only."""
        _arm(self._flag, self._number)

    def remember(self, x: Tensor, extremes: tuple[Tensor, Tensor]) -> None:
        """Note a tensor's extremes: a block's output is often the next norm's input."""
        if not x.is_inference():  # which has no version to tell it by
            self._extremes = (ref(x), x._version, extremes)

    def known_extremes(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the tensor's extremes, if it is the one that was noted last."""
        if self._extremes is None:
            return None
        tensor, version, extremes = self._extremes
        return extremes if tensor() is x and x._version == version else None


@torch.library.custom_op("gradlens::arm", mutates_args=("flag",))
def _arm(flag: Tensor, state: int) -> None:
    """Arm it. The flag is written to by name only, so that no compiler takes the call for dead code."""
    armed = _states.get(state)
    if armed is not None:  # the lens is gone, and its graph runs backward
        armed.arm_near()


@_arm.register_fake
def _(flag: Tensor, state: int) -> None:
    return None


def begin_trace(key: str) -> bool:
    """Note the graph that is being traced; dynamo runs this, and ``in_one_trace``, while it traces."""
    _states[int(key)].trace = torch._guards.CompileContext.current_trace_id()
    return True


def in_one_trace(key: str) -> bool:
    """Whether the graph is the one that was noted: with ``Module.compile`` each hook of a model has its own."""
    return _states[int(key)].trace == torch._guards.CompileContext.current_trace_id()


begin_trace._dynamo_marked_constant = True  # type: ignore[attr-defined]
in_one_trace._dynamo_marked_constant = True  # type: ignore[attr-defined]
