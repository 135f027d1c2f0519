"""Finding the places to tap: norms, blocks, and modules the user names; what each is called and where it stands."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from gradlens.errors import GradlensError
from gradlens.lens.norm_kinds import NormKind, looks_like_norm, recognise
from gradlens.lens.probing import probe

#: The names that ``watch`` understands besides regular expressions.
WATCH = ("norms", "blocks", "params", "updates")

#: Placement of norms in known families: class of the parent to (child name to placement). A class may also say it
#: itself in a class attribute ``placements``, as the models of this package do.
FAMILIES: dict[str, dict[str, str]] = {
    "BertSelfOutput": {"LayerNorm": "post_add"},
    "BertOutput": {"LayerNorm": "post_add"},
    "BertEmbeddings": {"LayerNorm": "embed"},
    "GPT2Block": {"ln_1": "pre_branch", "ln_2": "pre_branch"},
    "GPT2Model": {"ln_f": "final"},
    "LlamaDecoderLayer": {"input_layernorm": "pre_branch", "post_attention_layernorm": "pre_branch"},
    "LlamaModel": {"norm": "final"},
    "T5LayerSelfAttention": {"layer_norm": "pre_branch"},
    "T5LayerCrossAttention": {"layer_norm": "pre_branch"},
    "T5LayerFF": {"layer_norm": "pre_branch"},
    "T5Stack": {"final_layer_norm": "final"},
}
_TORCH_BLOCKS = ("TransformerEncoderLayer", "TransformerDecoderLayer")


@dataclass(frozen=True, kw_only=True)
class Site:
    """One tapped place; the fields of a row of the ``sites`` table."""

    path: str
    module: nn.Module
    kind: str
    order: int
    norm: NormKind | None = None
    placement: str | None = None
    block: int | None = None
    first_in_stack: bool = False

    def row(self) -> dict[str, object]:
        """Return the row of the ``sites`` table."""
        module, norm = self.module, self.norm
        shape = getattr(module, "normalized_shape", None)
        weight = getattr(module, "weight", None)
        width = None
        if norm is not None and norm.layout in ("axes", "trailing"):
            width = _product(shape) if shape is not None else (weight.numel() if weight is not None else None)
        return {
            "site": self.path,
            "module_class": f"{type(module).__module__}.{type(module).__qualname__}",
            "kind": self.kind,
            "norm": norm.name if norm else None,
            "placement": self.placement,
            "block": self.block,
            "order": self.order,
            "width": width,
            "eps": norm.eps(module) if norm else None,
            "affine": weight is not None if norm else None,
            "centered": norm.centered if norm else None,
        }


def _product(shape: Iterable[int]) -> int:
    size = 1
    for entry in shape:
        size *= int(entry)
    return size


def blocks(model: nn.Module) -> dict[str, tuple[int, bool]]:
    """Find the residual stack(s): runs of two or more equal classes in a list or sequence of modules.

    Nested stacks (a list inside a block) are not blocks of their own.

    Returns:
        Module path to (index in its stack, whether it is the stack's first).
    """
    found: dict[str, tuple[int, bool]] = {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or any(_inside(path, b) for b in found):
            continue
        children = list(module.named_children())
        classes = {type(child) for _, child in children}
        composed = all(next(child.children(), None) is not None for _, child in children)
        if len(children) >= 2 and len(classes) == 1 and composed:
            for index, (name, _) in enumerate(children):
                found[f"{path}.{name}" if path else name] = (index, index == 0)
    return found


def _inside(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent + ".")


def discover(model: nn.Module, watch: Iterable[str]) -> tuple[list[Site], list[str]]:
    """List the sites of a model, in order of registration; a shared module is one site, under its first name.

    Args:
        model: any module.
        watch: names of ``WATCH``, or regular expressions searched in module paths.

    Returns:
        The sites, and the paths of modules that are called norms but are not understood.

    Raises:
        GradlensError: an entry of watch is neither a name nor a regular expression, or matches no module.
    """
    watch = tuple(watch)
    patterns = _patterns(model, watch)
    stacks = blocks(model)
    sites: list[Site] = []
    strangers: list[str] = []
    for order, (path, module) in enumerate(model.named_modules()):
        norm = recognise(module, probe) if "norms" in watch or patterns else None
        index, first = next(((i, f) for b, (i, f) in stacks.items() if _inside(path, b)), (None, False))
        watched = any(pattern.search(path) for pattern in patterns)
        if norm is not None and ("norms" in watch or watched):
            kind, placement = "norm", _placement(model, path)
        elif "blocks" in watch and path in stacks:
            norm, kind, placement = None, "block", None
        elif watched:
            norm, kind, placement = None, "module", None
        else:
            if "norms" in watch and norm is None and looks_like_norm(module) and not _is_identity(module):
                strangers.append(path)
            continue
        sites.append(
            Site(
                path=path, module=module, kind=kind, order=order, norm=norm, placement=placement,
                block=index, first_in_stack=first and path in stacks,
            )
        )  # fmt: skip
    return sites, strangers


def _is_identity(module: nn.Module) -> bool:
    """Whether the class says of itself that it does not normalize (``normalizes = None``)."""
    return getattr(type(module), "normalizes", ...) is None


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


def _placement(model: nn.Module, path: str) -> str:
    """Look the norm's place up: what its ancestors declare, then the table of families; else "unknown"."""
    parts = path.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        parent = model.get_submodule(".".join(parts[:depth]))
        child = parts[depth]
        declared = getattr(type(parent), "placements", None) or FAMILIES.get(type(parent).__name__)
        if isinstance(declared, dict) and child in declared:
            return str(declared[child])
        if type(parent).__name__ in _TORCH_BLOCKS and child in ("norm1", "norm2", "norm3"):
            return "pre_branch" if parent.norm_first else "post_add"
        if isinstance(parent, nn.TransformerEncoder | nn.TransformerDecoder) and child == "norm":
            return "final"
    return "unknown"
