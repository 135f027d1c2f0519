"""Recognising a norm before it has run: a copy of it is run on made-up input, and told by what it does.

All that is known of a norm in a compiled graph, where no call is seen from Python; elsewhere a first guess, which the
first call must prove. One number of dimensions decides nothing where ways of normalizing are the same in it.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradlens.recognition.behaviour import Seen, best, fits, layouts
from gradlens.recognition.kinds import NormKind

#: Inputs of these sizes are tried: of the size of what is normalized, of a common eps, far below it.
_SCALES = (1.0, 3e-3, 1e-6, 1e-8)
_T = TypeVar("_T")
_known: "WeakKeyDictionary[type[nn.Module], dict[object, NormKind | Literal[False] | None]]" = WeakKeyDictionary()


def tried(module: nn.Module, told: NormKind | None = None) -> NormKind | Literal[False] | None:
    """Return how the module normalizes by its behaviour.

    Args:
        module: the candidate; it is copied, never run itself.
        told: what is known of its axes, and of whether it subtracts the mean.

    Returns:
        The kind (a factor other than 1 in its gain may be another for another width); False where what it does is
        none that is known; None where it cannot be run, or does one thing with some numbers of dimensions and another
        with others.
    """
    key = (_signature(module), told)
    known = _known.setdefault(type(module), {})
    if key not in known:
        known[key] = _tried(module, told)
    return known[key]


def forgets_size(module: nn.Module) -> bool:
    """Return whether a copy gives for an input of a hundred times the size what it gives for the input.

    So does whatever divides by a σ of its input, over any axes: cumulated, per irreducible representation, per group.

    Args:
        module: the candidate; it is copied, never run itself.
    """
    return _of_copy(module, _forgets_size, failed=False)


def _forgets_size(module: nn.Module) -> bool:
    for shape in _shapes(module):
        x = _inputs(shape)[0]
        outputs = [_run(module.train(), one) for one in (x, 100.0 * x, x.flip(-1))]
        once, large, other = (torch.zeros(0) if y is None else y for y in outputs)
        if once.numel() and large.shape == other.shape == once.shape:
            size = float(once.norm())
            # One that gives the same whatever comes in forgets more than the size.
            return float((large - once).norm()) < 1e-3 * size < 1e-2 * float((other - once).norm())
    return False


def _signature(module: nn.Module) -> object:
    """Return all that a norm's behaviour may depend on, but for the numbers in its parameters."""
    plain = (bool, int, float, str, tuple, torch.Size)
    said = tuple(sorted((key, repr(value)) for key, value in vars(module).items() if isinstance(value, plain)))
    shapes = tuple((name, tuple(tensor.shape)) for name, tensor in module.state_dict(keep_vars=True).items())
    return repr(module), said, shapes


def _tried(module: nn.Module, told: NormKind | None) -> NormKind | Literal[False] | None:
    def found(double: nn.Module) -> NormKind | Literal[False] | None:
        generator = torch.Generator().manual_seed(1)
        for parameter in double.parameters():
            # A gain of one, or a bias of zero, would hide that it is there.
            parameter.data.uniform_(0.3, 1.7, generator=generator)
        kinds = _kinds(double, told)
        return best(iter(kinds)) if kinds else None if kinds is None else False

    return _of_copy(module, found, failed=None)


def _of_copy(module: nn.Module, ask: Callable[[nn.Module], _T], failed: _T) -> _T:
    """Ask something of a copy in float64 on the host; nobody's random numbers are used up."""
    state = torch.get_rng_state()
    try:
        return ask(copy.deepcopy(module).to("cpu", torch.float64))
    # Any failure of somebody's module on a made-up input means one thing: not recognised.
    except Exception:
        return failed
    finally:
        torch.set_rng_state(state)


def _kinds(module: nn.Module, told: NormKind | None) -> list[NormKind] | Literal[False] | None:
    """Return the kinds that fit on inputs of every number of dimensions that the module takes.

    None if it takes none, or if those that fit are others for other numbers of dimensions; False if none fits.
    """
    agreed: list[NormKind] | None = None
    some = False
    kinds = layouts(module, type(module).__name__.lower()) if told is None else [told]
    for shape in _shapes(module):
        seen = []
        for x in _inputs(shape):
            y, evaluated = _run(module.train(), x), _run(module.eval(), x)
            if y is None or evaluated is None:
                break
            seen.append(Seen(x, y))
            if not torch.equal(y, evaluated):  # it does one thing in training and another in evaluation
                seen.append(Seen(x, evaluated))
        else:
            here = list(fits(module, seen, kinds, both=told is None, linear=False))
            alike = {_without_factor(kind) for kind in here}
            agreed = here if agreed is None else [kind for kind in agreed if _without_factor(kind) in alike]
            some = some or bool(here)
    return agreed if agreed or agreed is None else None if some else False


def _without_factor(kind: NormKind) -> NormKind:
    return kind if kind.gain_factor == 1.0 else replace(kind, gain_factor=0.0)


def _shapes(module: nn.Module) -> Iterator[tuple[int, ...]]:
    """Yield shapes of inputs, unequal in every dimension, with what a gain is as long as last, or after the batch."""
    shapes = [p.shape for p in module.parameters(recurse=False)]
    sizes = [size for shape in shapes for size in shape if size > 1]
    said = getattr(module, "normalized_shape", None) or (24,)
    width = max(sizes, default=0) or (said if isinstance(said, int) else max(said))
    # Of two dimensions only, most ways of normalizing are the same.
    yield from ((2, 5, width), (2, width, 7), (3, 2, 5, width), (2, width, 5, 3))
    for shape in dict.fromkeys(shapes):
        if len(shape) > 2:
            yield (2, *shape)


def _inputs(shape: Sequence[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")
    # Vectors of several lengths, whichever axes they lie along: by their lengths norms are told from linear maps.
    for axis, size in enumerate(shape):
        stretch = torch.rand(size, generator=generator, dtype=torch.float64, device="cpu") + 0.5
        x = x * stretch.view(-1, *([1] * (len(shape) - 1 - axis)))
    return [scale * (3.0 * x + 1.5) for scale in _SCALES]


def _run(module: nn.Module, x: Tensor) -> Tensor | None:
    try:
        with torch.no_grad():
            y = module(x.clone())
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
        return None
    return y if isinstance(y, Tensor) and y.shape == x.shape else None
