"""Finding the places to tap: norms, blocks, and modules the user names; what each is called.

Where it stands is by names here, until a pass has shown it (``placing``).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from gradlens.errors import GradlensError
from gradlens.lens.families import declares, is_block, is_stage, placements_of
from gradlens.lens.world import class_of
from gradlens.recognition import NormKind, Taken, recognise

#: The names that ``watch`` understands besides regular expressions.
WATCH = ("norms", "blocks", "params", "updates", "attention")
#: Where a norm may stand: first on a branch, inside of one, last on it; on the stream after an addition, after the last
#: one, before the first; on queries or keys. None of these: on a projected skip, between stages, in feature extractors
#: and heads.
PLACEMENTS = ("pre_branch", "in_branch", "post_branch", "post_add", "final", "embed", "qk", "unknown")


@dataclass(frozen=True, kw_only=True)
class Site:
    """One tapped place; the fields of a row of the ``sites`` table.

    A norm's ``taken`` says what its module is taken for; ``norm`` is None while that must be seen. ``told`` is whether
    user or module said its placement, over which nothing goes that a pass shows.
    """

    path: str
    module: nn.Module
    kind: str
    order: int
    norm: NormKind | None = None
    taken: Taken | None = None
    placement: str | None = None
    told: bool = False
    block: int | None = None
    first_in_stack: bool = False

    def row(self) -> dict[str, object]:
        """Return the row of the ``sites`` table."""
        module, norm, cls = self.module, self.norm, class_of(self.module)
        shape = getattr(module, "normalized_shape", None)
        shape = (shape,) if isinstance(shape, int) else shape
        # A parametrization is not run for its size: it may draw numbers.
        gain = norm.gain_name if norm is not None else "weight"
        parametrized = is_parametrized(module, gain)
        weight = None if parametrized else getattr(module, gain, None)
        width = None
        if norm is not None and norm.layout in ("axes", "trailing"):
            width = _product(shape) if shape is not None else (weight.numel() if weight is not None else None)
        return {
            "site": self.path,
            "module_class": f"{cls.__module__}.{cls.__qualname__}",
            "kind": self.kind,
            "norm": norm.name if norm else None,
            "placement": self.placement,
            "block": self.block,
            "order": self.order,
            "width": width,
            "eps": norm.eps(module) if norm else None,
            "affine": parametrized or weight is not None if norm else None,
            "centered": norm.centered if norm else None,
        }


def _product(shape: Iterable[int]) -> int:
    size = 1
    for entry in shape:
        size *= int(entry)
    return size


def stacks(model: nn.Module) -> dict[str, tuple[int, bool]]:
    """Find the residual stack(s): runs of two or more equal classes in a list or sequence of modules.

    Nested stacks (a list inside a block) are not blocks of their own. But in a list of stages (of classes so named:
    Swin's, ConvNeXt's, ResNet's) each stage is a stack of its own, even of one block: its stream ends where the next
    stage downsamples it.

    Returns:
        Module path to (index in its stack, whether it is the stack's first).
    """
    found: dict[str, tuple[int, bool]] = {}
    of_stages: set[nn.Module] = set()
    for path, module in model.named_modules():
        children = _run(module)
        if not children or any(is_inside(path, b) for b in found):
            continue
        inner = [child for stage in children.values() if is_stage(stage) for child in stage.children() if _run(child)]
        of_stages.update(inner)
        if inner or (len(children) < 2 and module not in of_stages):
            continue
        for index, name in enumerate(children):
            found[f"{path}.{name}" if path else name] = (index, index == 0)
    return found


def _run(module: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a list where they may be blocks: composed, and of one class; else none."""
    children = dict(module.named_children()) if isinstance(module, nn.ModuleList | nn.Sequential) else {}
    classes = {class_of(child) for child in children.values()}
    composed = all(next(child.children(), None) is not None for child in children.values())
    return children if len(classes) == 1 and composed and is_block(classes.pop()) else {}


def is_inside(path: str, parent: str) -> bool:
    """Whether a module is another one, or a part of it."""
    return path == parent or path.startswith(parent + ".")


def discover(model: nn.Module, watch: Iterable[str], placement: Mapping[str, str] | None = None) -> list[Site]:
    """List the sites of a model, in order of registration; a shared module is one site, under its first name.

    Modules that may be norms, but must be seen running to be told, are sites of kind "norm" without a ``norm``.

    Args:
        model: any module.
        watch: names of ``WATCH``, or regular expressions searched in module paths.
        placement: regular expressions searched in norms' paths to the words of ``PLACEMENTS`` that hold there.

    Returns:
        The sites.

    Raises:
        GradlensError: an entry of watch is neither a name nor a regular expression, or matches no module; or one of
            placement is no regular expression, has another word, or matches no norm.
    """
    watch = tuple(watch)
    patterns = _patterns(model, watch)
    found = stacks(model)
    sites: list[Site] = []
    for order, (path, module) in enumerate(model.named_modules()):
        taken = recognise(module) if "norms" in watch or patterns else None
        index, first = next(((i, f) for b, (i, f) in found.items() if is_inside(path, b)), (None, False))
        watched = any(pattern.search(path) for pattern in patterns)
        norm = taken.kind if taken is not None else None
        if norm is not None and ("norms" in watch or watched):
            kind, (place, told) = "norm", _placement(model, path)
        elif "blocks" in watch and path in found:
            taken, kind, place, told = None, "block", None, False
        elif watched:
            taken, kind, place, told = None, "module", None, False
        elif taken is not None and "norms" in watch:
            kind, (place, told) = "norm", _placement(model, path)
        else:
            continue
        sites.append(
            Site(
                path=path, module=module, kind=kind, order=order, norm=norm if taken else None, taken=taken,
                placement=place, told=told, block=index, first_in_stack=first and path in found,
            )
        )  # fmt: skip
    return _told(sites, placement or {})


def _told(sites: list[Site], placement: Mapping[str, str]) -> list[Site]:
    """Return the sites with the placements that the user gave."""
    for entry, word in placement.items():
        if word not in PLACEMENTS:
            raise GradlensError(f"placement takes {', '.join(PLACEMENTS)}; {entry!r} has {word!r}.")
        try:
            pattern = re.compile(entry)
        except re.error as error:
            raise GradlensError(f"placement takes regular expressions of norms' paths; {entry!r}: {error}.") from error
        told = [site.kind == "norm" and pattern.search(site.path) is not None for site in sites]
        if not any(told):
            paths = [site.path for site in sites if site.kind == "norm"]
            raise GradlensError(
                f"placement must match something; no norm's path matches {entry!r}. Norms of this model: "
                f"{', '.join(paths[:6])}{', ...' if len(paths) > 6 else ''}."
            )
        sites = [replace(s, placement=word, told=True) if t else s for s, t in zip(sites, told, strict=True)]
    return sites


def _patterns(model: nn.Module, watch: tuple[str, ...]) -> list[re.Pattern[str]]:
    paths = [path for path, _ in model.named_modules()]
    patterns = []
    for entry in watch:
        if entry in WATCH:
            continue
        try:
            pattern = re.compile(entry)
        except re.error as error:
            raise GradlensError(
                f"watch takes {', '.join(WATCH)} or regular expressions; {entry!r}: {error}."
            ) from error
        if not any(pattern.search(path) for path in paths):
            raise GradlensError(
                f"watch must match something; no module's path matches {entry!r}. "
                f"Names it knows: {', '.join(WATCH)}. Paths of this model: {', '.join(paths[1:6])}, ..."
            )
        patterns.append(pattern)
    return patterns


def _placement(model: nn.Module, path: str) -> tuple[str, bool]:
    """Look the norm's place up in what its ancestors, the nearest first, declare or are known for; else "unknown".

    Returns:
        The placement, and whether an ancestor declares it.
    """
    parts = path.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        module = model.get_submodule(".".join(parts[:depth]))
        known = placements_of(module)
        # A norm may be wrapped: what is said of the wrapper holds for what is in it.
        for end in range(len(parts), depth, -1):
            if ".".join(parts[depth:end]) in known:
                return known[".".join(parts[depth:end])], declares(module)
    return "unknown", False
