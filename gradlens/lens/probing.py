"""Recognising a normalization by what it does, for classes that nobody registered.

A copy of the module is fed random vectors in float64 on the CPU. If its output, divided by its gain, has zero mean
and unit variance (or unit mean square) along an axis, it is that norm, whatever it is called.
"""

import copy
import itertools
from dataclasses import replace

import torch
from torch import Tensor, nn

from gradlens.lens.norm_kinds import NormKind
from gradlens.lens.statistics import inv_sigma

#: Shapes and axis to try with a vector of H entries: features last (3-D and 2-D input), then channels first.
_TRIALS = (((2, 5), (-1,)), ((3,), (-1,)))
#: Whether μ is subtracted, and whether σ is the deviation over H − 1.
_CONVENTIONS = ((True, False), (True, True), (False, False))


def probe(module: nn.Module) -> NormKind | None:
    """Return how the module normalizes by its behaviour; None where it does not, or cannot be run.

    Args:
        module: the candidate; it is copied, never run itself.
    """
    width = next((p.numel() for p in module.parameters(recurse=False) if p.dim() == 1), 16)
    state = torch.get_rng_state()
    try:
        double = copy.deepcopy(module).to("cpu", torch.float64).eval()
        generator = torch.Generator().manual_seed(1)
        for parameter in double.parameters():
            # A gain of one, or a bias of zero, would hide that it is there.
            parameter.data.uniform_(0.3, 1.7, generator=generator)
        for inputs, axes in _inputs(width):
            kind = _kind(double, inputs, axes)
            # The same again at the scale of a common eps, which must be the one that the module states.
            if kind is not None and _kind(double, 3e-3 * inputs, axes) == kind:
                return kind
    # Any failure of a stranger's module on a made-up input means one thing: not recognised.
    except Exception:
        return None
    finally:
        torch.set_rng_state(state)
    return None


def _inputs(width: int) -> list[tuple[Tensor, tuple[int, ...]]]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return 3.0 * torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu") + 1.5

    last = [(draw(*lead, width), axes) for lead, axes in _TRIALS]
    return [*last, (draw(2, width, 3, 4), (-3,))]


def _run(module: nn.Module, x: Tensor) -> Tensor | None:
    try:
        with torch.no_grad():
            y = module(x)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
        return None
    return y if isinstance(y, Tensor) and y.shape == x.shape else None


def _kind(module: nn.Module, x: Tensor, axes: tuple[int, ...]) -> NormKind | None:
    """Compare the module with centered and uncentered normalization of x along the axes."""
    y = _run(module, x)
    if y is None:
        return None
    name = type(module).__name__.lower()
    for (gain_name, bias_name), (centered, unbiased), offset in itertools.product(
        _roles(module), _CONVENTIONS, (0.0, 1.0)
    ):
        kind = NormKind(
            name=name,
            axes=axes,
            centered=centered,
            mean_gradient=centered,
            gain_name=gain_name,
            gain_offset=offset,
            unbiased=unbiased,
        )
        gain = kind.gain(module, x.dim())
        # A bias is shaped by the same rule as a gain.
        shift = replace(kind, gain_name=bias_name, gain_offset=0.0).gain(module, x.dim())
        if not (offset and gain is None) and _matches(kind, module, x, y, gain, shift):
            return kind
    return None


def _roles(module: nn.Module) -> list[tuple[str, str]]:
    """Return which parameter may be the gain and which the bias; the usual names first, an absent one for none."""
    own = [name for name, _ in module.named_parameters(recurse=False)]
    if len(own) > 2:
        return [("weight", "bias")]
    names = (*sorted(own, key=lambda name: name != "weight"), *(["bias", "weight"][: 2 - len(own)]))
    pairs = list(itertools.permutations(dict.fromkeys(names), 2))
    return sorted(pairs, key=lambda pair: pair[0] != "weight")


def _matches(
    kind: NormKind, module: nn.Module, x: Tensor, y: Tensor, gain: Tensor | None, shift: Tensor | None
) -> bool:
    centred = x - x.mean(kind.axes, keepdim=True) if kind.centered else x
    norm, width = torch.linalg.vector_norm(centred, dim=kind.axes, keepdim=True), x.shape[kind.axes[0]]
    expected = centred * inv_sigma(norm, width, kind.eps(module, torch.float32), unbiased=kind.unbiased)
    expected = expected if gain is None else expected * gain
    expected = expected if shift is None else expected + shift
    # Classes that normalize in float32 whatever comes in are recognised too.
    return torch.allclose(y.double(), expected, rtol=1e-4, atol=1e-4) and bool(expected.abs().max() > 1e-3)
