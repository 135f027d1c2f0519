"""Which names of one model are which of another: without wrappers, and where renamed by place and size."""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from gradlens.recording.recording import Recording

#: Parts of a path that wrappers put anywhere in it: torch.compile, FSDP, checkpoint wrappers, PEFT's layers.
_ANYWHERE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"})
#: Those that stand before every name: DataParallel's, PEFT's models.
_BEFORE_ALL = (("module",), ("base_model", "model"))
#: Share of a run of names without a partner that must agree in size and order, to have been renamed.
_SHARE = 0.5


@dataclass(frozen=True)
class Alignment:
    """Two models' names held against each other.

    Attributes:
        pairs: name in the first model to the same in the second, in the first's order.
        renamed: those of them whose names differ by more than a wrapper.
        removed: names of the first that the second does not have.
        added: names of the second that the first does not have.
    """

    pairs: Mapping[str, str]
    renamed: Mapping[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """How many of the smaller model's names the other has too."""
        return len(self.pairs) / max(1, len(self.pairs) + min(len(self.removed), len(self.added)))


def aligned(first: Mapping[str, Hashable], second: Mapping[str, Hashable]) -> Alignment:
    """Align the names of two models.

    A name's partner is the one that is the same without wrappers, and of the same size. What is left over between two
    names that have a partner was renamed where at least half of it agrees in size, in the same order.

    Args:
        first: name to size, or whatever two that are the same share; in the model's order. None agrees with any.
        second: the same of the other model.
    """
    plain_first, plain_second = plain(first), plain(second)
    at = {name: own for own, name in plain_second.items()}
    pairs = {own: at[name] for own, name in plain_first.items() if name in at and _agree(first[own], second[at[name]])}
    renamed: dict[str, str] = {}
    partners = {theirs: own for own, theirs in pairs.items()}
    behind_first = _behind(first, {own: own for own in pairs})
    behind_second = _behind(second, partners)
    for anchor, left in behind_first.items():
        renamed |= _renamed(left, behind_second.get(anchor, []), first, second)
    both = pairs | renamed
    taken = set(both.values())
    return Alignment(
        pairs={own: both[own] for own in first if own in both},
        renamed=renamed,
        removed=tuple(own for own in first if own not in both),
        added=tuple(theirs for theirs in second if theirs not in taken),
    )


def parameters(before: Recording, after: Recording) -> Alignment:
    """Align the parameters of two runs, by name and number of entries."""
    first, second = (run.params.drop_duplicates("name") for run in (before, after))
    return aligned(*(dict(zip(own["name"].astype(str), own["numel"], strict=True)) for own in (first, second)))


def plain(names: Mapping[str, Hashable]) -> dict[str, str]:
    """Return each name without what wrappers put into it; it stays whole where two would become the same."""
    parts = {name: tuple(part for part in name.split(".") if part not in _ANYWHERE) for name in names}
    changed = True
    while changed and any(parts.values()):
        changed = False
        for prefix in _BEFORE_ALL:
            # The wrapper itself is a place too, whose name is the prefix or a part of it.
            if all(p[: len(prefix)] == prefix[: len(p)] for p in parts.values()):
                parts = {name: p[len(prefix) :] for name, p in parts.items()}
                changed = True
    found = {name: ".".join(p) for name, p in parts.items()}
    counts = Counter(found.values())
    return {own: name if counts[name] == 1 else own for own, name in found.items()}


def _agree(one: Hashable, other: Hashable) -> bool:
    return one is None or other is None or one == other


def _behind(names: Mapping[str, Hashable], anchors: Mapping[str, str]) -> dict[str, list[str]]:
    """Return names without a partner by the last name before them that has one."""
    found: dict[str, list[str]] = {}
    anchor = ""
    for name in names:
        if name in anchors:
            anchor = anchors[name]
        else:
            found.setdefault(anchor, []).append(name)
    return found


def _renamed(
    left: list[str], right: list[str], first: Mapping[str, Hashable], second: Mapping[str, Hashable]
) -> dict[str, str]:
    """Pair the names that agree in size and order, where most of them do."""
    matcher = SequenceMatcher(None, [first[n] for n in left], [second[n] for n in right], autojunk=False)
    pairs = {
        left[block.a + i]: right[block.b + i] for block in matcher.get_matching_blocks() for i in range(block.size)
    }
    ends = {own: {own.rpartition(".")[2], theirs.rpartition(".")[2]} for own, theirs in pairs.items()}
    pairs = {own: theirs for own, theirs in pairs.items() if ends[own] != {"weight", "bias"}}
    return pairs if len(pairs) >= _SHARE * max(len(left), len(right)) else {}
