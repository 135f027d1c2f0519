"""What all hooks of one lens share: whether this step is recorded, where rows live, who hears of backward's end."""

import itertools
import threading
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary, ref

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gradlens.lens.guard import Guard
from gradlens.lens.hooks import at_end_of_backward, in_backward, regions
from gradlens.lens.rows import RowBuffer
from gradlens.lens.world import World

_switches: "WeakValueDictionary[int, Switch]" = WeakValueDictionary()
_numbers = itertools.count()
_GRAD = torch._C._functorch.TransformType.Grad


class Switch:
    """The shared state. ``recording`` is a plain bool: a compiled graph has one version with it and one without."""

    def __init__(self, world: World, device: torch.device, guard: Guard | None = None) -> None:
        self.recording = True
        self.world = world
        self.guard = guard or Guard()
        #: The step's number.
        self.step = 0
        #: Kinds of norms and sizes whose hooks can be traced into a graph.
        self.rehearsed: set[tuple[object, ...]] = set()
        #: The lens, where it shall live as long as its hooks.
        self.lens: object = None
        #: Where the model was when the lens was attached; compiled graphs write there.
        self.device = device
        #: Whether the end of this step's backward pass will be known from the root's output.
        self.root_seen = False
        #: Whether the last thing that happened was the end of a backward pass.
        self.backward_over = False
        #: Forward passes of the model that have begun.
        self.forwards = 0
        #: The precision of autocast around the model's last forward pass; empty without.
        self.autocast = ""
        self.on_forward: Callable[[], None] = lambda: None
        #: Called with the number of the forward pass that raised.
        self.on_failure: Callable[[int], None] = lambda forward: None
        self.on_backward: Callable[[], None] = lambda: None
        self.on_backward_end: Callable[[], None] = lambda: None
        self.buffers: dict[torch.device, RowBuffer] = {}
        self.unsupported: dict[str, str] = {}
        #: Sites that ran without a graph, outside of any checkpoint, and those inside of a transform of torch.func.
        self.without_graph: set[str] = set()
        self.transformed: set[str] = set()
        #: Sites whose activations another process records, which has the same.
        self.elsewhere: set[str] = set()
        self._evaluating = threading.local()
        self._armed_for = -1
        self._number = next(_numbers)
        #: The graph into which the model's first hook was traced last, and what this switch is called there: a text, as
        #: in ``compiling``.
        self.trace: object = None
        self.key = str(self._number)
        self._flag = torch.zeros((), device=device)
        self._measured: tuple[ref[Tensor], int, tuple[Tensor, Tensor]] | None = None
        _switches[self._number] = self

    def begin_forward(self) -> None:
        """Begin a forward pass: the root was called, or a site after a backward pass where the root never is."""
        self.backward_over = False
        self.forwards += 1
        self.on_forward()

    def evaluate(self, now: bool) -> None:
        """Say whether this thread runs an evaluation of the whole model, which is not recorded."""
        self._evaluating.now = now

    @property
    def evaluating(self) -> bool:
        """Whether this thread runs an evaluation of the whole model."""
        return getattr(self._evaluating, "now", False)

    def records(self, site: str) -> bool:
        """Whether a call that begins now is recorded, in eager mode."""
        if not self.recording or self.evaluating or torch._C._get_tracing_state() is not None:
            return False
        if self.backward_over and not self.root_seen and not in_backward():
            self.begin_forward()
        transforms = torch._C._functorch.get_interpreter_stack()
        if forward_ad._current_level >= 0 or (transforms and any(one.key() != _GRAD for one in transforms)):
            self.transformed.add(site)
            return False
        if not torch.is_grad_enabled() and not in_backward() and regions() == (None, None):
            self.without_graph.add(site)
            return False
        return True

    def holds(self, site: str, x: Tensor) -> bool:
        """Whether an activation is this process's to record."""
        if self.world.holds(x):
            return True
        self.elsewhere.add(site)
        return False

    def drain(self) -> None:
        """Turn all waiting moments into sums."""
        for buffer in self.buffers.values():
            buffer.drain()

    def buffer(self, device: torch.device) -> RowBuffer:
        """Return the device's row buffer, made on first use."""
        if device not in self.buffers:
            self.buffers[device] = RowBuffer(device)
        return self.buffers[device]

    def arm(self, grad: Tensor | None = None) -> None:
        """Ask, once a backward pass, to be told of its end."""
        task = torch._C._current_graph_task_id()
        if task != self._armed_for:
            self._armed_for = task
            self.on_backward()
            # Queued twice: DDP and FSDP finish their reductions in callbacks of the first round.
            at_end_of_backward(partial(at_end_of_backward, self.guard.around(self._ended)))

    def backward_broke(self) -> bool:
        """Whether the last backward pass began and never ended: it raised. Said once."""
        broke = self._armed_for != -1 and not in_backward()
        if broke:
            self._armed_for = -1
        return broke

    def _ended(self) -> None:
        self._armed_for = -1
        self.backward_over = True
        self.on_backward_end()

    def arm_in_graph(self, grad: Tensor) -> None:
        """Do as ``arm`` from inside a compiled graph, which can call operators only."""
        _arm(self._flag, self._number)

    def remember(self, x: Tensor, extremes: tuple[Tensor, Tensor]) -> None:
        """Note a tensor's extremes: a block's output is often the next norm's input."""
        if not x.is_inference():  # which has no version to tell it by
            self._measured = (ref(x), x._version, extremes)

    def known_extremes(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the tensor's extremes, if it is the one that was measured last."""
        if self._measured is None:
            return None
        measured, version, extremes = self._measured
        return extremes if measured() is x and x._version == version else None


@torch.library.custom_op("gradlens::arm", mutates_args=("flag",))
def _arm(flag: Tensor, switch: int) -> None:
    """Arm a switch. The flag is written to by name only, so that no compiler takes the call for dead code."""
    armed = _switches.get(switch)
    if armed is not None:  # the lens is gone, and its graph runs backward
        armed.arm()


@_arm.register_fake
def _(flag: Tensor, switch: int) -> None:
    return None


def begin_trace(key: str) -> bool:
    """Note the graph that is being traced; dynamo runs this, and ``in_one_trace``, while it traces."""
    _switches[int(key)].trace = torch._guards.CompileContext.current_trace_id()
    return True


def in_one_trace(key: str) -> bool:
    """Whether the graph is the one that was noted: with ``Module.compile`` each hook of the model has its own."""
    return _switches[int(key)].trace == torch._guards.CompileContext.current_trace_id()


begin_trace._dynamo_marked_constant = True  # type: ignore[attr-defined]
in_one_trace._dynamo_marked_constant = True  # type: ignore[attr-defined]
