"""What a call shows of the module that it is a call of."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from gradlens.lens.hooks import is_batched
from gradlens.lens.world import local
from gradlens.recognition.kinds import NormKind
from gradlens.recognition.likeness import uses
from gradlens.recognition.proof import Backward, Forward


class Evidence:
    """What one call of a module shows: a sample of its input, then of its output and gradients."""

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
        self.on_verdict: Callable[[Evidence], None] = lambda evidence: None

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
        return self.version is None or self.x._version == self.version

    def grad_output(self, grad: Tensor) -> None:
        """Hand on a gradient."""
        if self.backward is not None and not is_batched(grad):
            self.backward.grad_output(local(grad))

    def grad_input(self, grad: Tensor) -> None:
        """Hand on a gradient, and have it judged."""
        if self.backward is not None and not is_batched(grad) and self.backward.grad_input(local(grad)):
            self.on_verdict(self)
