"""Which modules are blocks, and where norms stand: by structure, by declaration, by family."""

import pytest
import torch
from torch import nn

from gradlens.lens.families import FAMILIES
from gradlens.lens.sites import discover, stacks
from gradlens.recording.schema import STORED

WORDS = {"pre_branch", "in_branch", "post_branch", "post_add", "final", "embed", "qk"}


class Block(nn.Module):
    """A residual block, or one with a list of experts in it."""

    def __init__(self, width: int = 4, experts: int = 0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(width, width)) for _ in range(experts))


class Stage(nn.Module):
    """Blocks of one width, after what leads to it."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width // 2, width, 2, 2)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))


def found(model: nn.Module) -> dict[str, int]:
    return {path: index for path, (index, _) in stacks(model).items()}


def test_a_run_of_equal_composed_classes_is_a_stack():
    model = nn.ModuleDict(
        {"a": nn.ModuleList([Block(), Block()]), "b": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))}
    )
    assert found(model) == {"a.0": 0, "a.1": 1}


def test_experts_and_sublayers_in_a_block_are_no_blocks():
    assert found(nn.ModuleList([Block(experts=2), Block(experts=3)])) == {"0": 0, "1": 1}


def test_one_block_is_no_stack():
    assert found(nn.ModuleList([Block(experts=1)])) == {}


def test_each_stage_is_a_stack_even_of_one_block():
    model = nn.Sequential(Stage(4, 2), Stage(8, 1))
    assert stacks(model) == {"0.blocks.0": (0, True), "0.blocks.1": (1, False), "1.blocks.0": (0, True)}


class Wav2Vec2LayerNormConvLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.layer_norm = nn.Conv1d(1, 1, 1), nn.LayerNorm(1)


class NoLayerNormConvLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 1)


def test_the_convolutions_of_a_feature_extractor_are_no_blocks():
    assert found(nn.ModuleList([Wav2Vec2LayerNormConvLayer(), Wav2Vec2LayerNormConvLayer()])) == {}


def test_a_class_named_for_having_no_norm_is_not_missed_as_one():
    sites = discover(nn.Sequential(NoLayerNormConvLayer(), nn.LayerNorm(3)), ("norms",))
    assert [site.path for site in sites if site.norm is not None or site.taken.named] == ["1"]


def placements(model: nn.Module) -> dict[str, str | None]:
    return {site.path: site.placement for site in discover(model, ("norms",))}


@pytest.mark.parametrize(("norm_first", "expected"), [(True, "pre_branch"), (False, "post_add")])
def test_torchs_own_layers_are_told_apart_by_how_they_were_built(norm_first, expected):
    layer = nn.TransformerDecoderLayer(4, 1, 4, norm_first=norm_first)
    model = nn.TransformerDecoder(layer, 2, norm=nn.LayerNorm(4))
    said = placements(model)
    assert said.pop("norm") == "final"
    assert set(said.values()) == {expected}
    assert len(said) == 6


class Same(nn.TransformerEncoderLayer):
    """Adds nothing to the arrangement."""


class Own(nn.TransformerEncoderLayer):
    def forward(self, src):
        return self.norm2(src + self.norm1(src))


def test_a_subclass_is_of_the_family_only_with_its_forward():
    assert set(placements(Same(4, 1, 4)).values()) == {"post_add"}
    assert set(placements(Own(4, 1, 4)).values()) == {"unknown"}


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LayerNorm(4)


class Declares(nn.Module):
    placements = {"first": "pre_branch", "branch.last": "post_branch"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch = Wrapped(), nn.ModuleDict({"last": nn.LayerNorm(4), "other": nn.LayerNorm(4)})


def test_a_class_may_declare_its_placements_by_path_and_for_wrapped_norms():
    assert placements(Declares()) == {
        "first.inner": "pre_branch",
        "branch.last": "post_branch",
        "branch.other": "unknown",
    }


def test_the_table_of_families_uses_the_words_of_the_schema():
    about = next(column for column in STORED["sites"] if column.name == "placement")
    assert all(word in str(about) for word in WORDS)
    said = {place for family in FAMILIES.values() for places in family.values() if not callable(places)
            for place in places.values()}  # fmt: skip
    assert said <= WORDS
    names = [name for family in FAMILIES.values() for name in family]
    assert len(names) == len(set(names))


def test_a_lazy_module_among_the_blocks_is_no_obstacle():
    lazy = [nn.Sequential(nn.LazyLinear(3), nn.LayerNorm(3)) for _ in range(2)]
    assert found(nn.ModuleList(lazy)) == {"0": 0, "1": 1}
    assert torch.nn.parameter.is_lazy(lazy[0][0].weight)
