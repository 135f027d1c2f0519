"""A witness of a whole model: keeps what went into every norm and what came back, and works out by float64 autograd
what a recording must say of it. Nothing here is shared with the package.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from tests.oracles import MOMENTS, SCALES, SHARES, Case, expected_row

#: What a row cannot know where the input needs no gradient.
NEEDS_GRAD_INPUT = ("rescaling", "kept", "grad_input_norm", "backward_gain", "mean2_actual", "var_actual")


@dataclass
class Call:
    """One call of one norm: its input, how it normalizes, and every gradient that arrived at its output."""

    x: Tensor
    case: Case
    width: int
    needs_gradient: bool
    gradients: list[Tensor] = field(default_factory=list)


def case_of(norm: nn.Module) -> Case:
    """How torch's own norms (or a class that says so in ``like``) normalize; the gain as it is now."""
    kind = getattr(norm, "like", type(norm))
    gain = None if norm.weight is None else norm.weight.detach().clone()
    # Without an eps torch takes that of the precision it computes in.
    double = norm.weight is not None and norm.weight.dtype == torch.float64
    eps = norm.eps if norm.eps is not None else torch.finfo(torch.float64 if double else torch.float32).eps
    if kind is nn.BatchNorm2d:
        return Case((0, 2, 3), eps, gain=gain.view(-1, 1, 1))
    if kind is nn.GroupNorm:
        split = lambda x: x.reshape(x.shape[0], norm.num_groups, x.shape[1] // norm.num_groups, -1)  # noqa: E731
        return Case((-2, -1), eps, gain=gain.view(norm.num_groups, -1, 1), to_view=split)
    if kind is nn.InstanceNorm2d:
        return Case((-2, -1), eps, gain=gain.view(-1, 1, 1))
    return Case((-1,), eps, centered=kind is nn.LayerNorm, gain=gain)


NORMS = (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d)


class Witness:
    """Watches the norms of a model; ``step`` says what the rows of the step must be, and forgets them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: dict[tuple[str, int], list[Call]] = defaultdict(list)
        self._count: dict[str, int] = defaultdict(int)
        self._backward_began = False
        for site, module in model.named_modules():
            if isinstance(module, NORMS) or hasattr(module, "like"):
                module.register_forward_hook(self._watch(site), with_kwargs=True)

    def _watch(self, site: str):
        def saw(norm, args, kwargs, output):
            x = args[0] if args else kwargs.get("input", kwargs.get("x"))
            y = output[0] if isinstance(output, tuple) else output
            if not torch.is_grad_enabled() or torch._C._current_graph_task_id() != -1:
                return  # an evaluation, or a checkpoint's second pass
            if self._backward_began:  # a further micro-batch: its calls are those of the same number
                self._backward_began = False
                self._count.clear()
            case = case_of(norm)
            shape = case.view(x).shape
            width = torch.Size([shape[dim] for dim in case.dims]).numel()
            call = Call(x.detach().clone(), case, width, x.requires_grad)
            self.calls[site, self._count[site]].append(call)
            self._count[site] += 1
            if y.requires_grad:
                y.register_hook(lambda grad: self._arrived(call, grad))

        return saw

    def _arrived(self, call: Call, grad: Tensor) -> None:
        self._backward_began = True
        call.gradients.append(grad.detach().clone())

    def gradients(self) -> dict[str, Tensor | None]:
        """Every parameter's gradient as it is now, in float64."""
        named = self.model.named_parameters()
        return {name: None if p.grad is None else p.grad.detach().double().clone() for name, p in named}

    def step(self) -> dict[tuple[str, int], "Expected"]:
        """What the step's rows must be; then forget the step."""
        rows = {key: Expected(calls) for key, calls in self.calls.items()}
        self.calls, self._backward_began = defaultdict(list), False
        self._count.clear()
        return rows


class Expected:
    """What one row of ``norms``, and the row of its input in ``activations``, must say."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.x = torch.cat([call.x for call in calls])
        pairs = [(call.x, grad) for call in calls for grad in call.gradients]
        self.row = None
        if pairs:
            inputs, gradients = (torch.cat(tensors) for tensors in zip(*pairs, strict=True))
            self.row = expected_row(inputs, gradients, calls[0].case)

    def check(self, row, share: float, relative: float) -> None:
        """Compare a recorded row of ``norms``."""
        width = self.calls[0].width
        assert row["width"] == width
        assert row["vectors"] == self.x.numel() // width
        assert row["nonfinite"] == 0
        if self.row is None:
            assert row[["recentering", "kept", "grad_output_norm", *NEEDS_GRAD_INPUT]].isna().all()
        elif self.calls[0].needs_gradient:
            _check_row(row, self.row, share, relative, floor=10 * torch.finfo(self.x.dtype).eps ** 2)
        else:
            assert row[list(NEEDS_GRAD_INPUT)].isna().all()
            for name in ("recentering", "mean_share"):
                assert row[name] == pytest.approx(self.row[name], abs=share), name
            for name in ("inv_sigma", "grad_output_norm", "var_detached"):
                assert row[name] == pytest.approx(self.row[name], rel=relative), name

    def check_input(self, row, relative: float) -> None:
        """Compare the recorded row of the norm's input in ``activations``."""
        x = self.x.double()
        assert row["numel"] == x.numel()
        assert row["rms"] == pytest.approx(float(x.square().mean().sqrt()), rel=relative)
        assert row["mean"] == pytest.approx(float(x.mean()), abs=relative * float(x.std()))
        assert row["absmax"] == pytest.approx(float(x.abs().max()), rel=1e-6)


def _check_row(row, expected: dict[str, float], share: float, relative: float, floor: float) -> None:
    assert row["recentering"] + row["rescaling"] + row["kept"] == pytest.approx(1, abs=1e-6)
    for name in SHARES:
        assert row[name] == pytest.approx(expected[name], abs=share), name
    for name in MOMENTS + SCALES:
        # A mean that is zero in theory is as large as the rounding of what it is a mean of.
        least = floor * expected["var_detached"] if name.startswith("mean2") else 0.0
        assert row[name] == pytest.approx(expected[name], rel=relative, abs=least), name
