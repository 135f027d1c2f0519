"""Names of two models are aligned: wrappers taken off, renamed ones told by place and size."""

import pytest

from gradlens.recording.alignment import aligned, plain

MODEL = {"embed.weight": 640, "blocks.0.norm.weight": 8, "blocks.0.norm.bias": 8, "blocks.0.w.weight": 64, "head.w": 80}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_fsdp_wrapped_module.{name}",
        lambda name: name.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module."),
        lambda name: name.replace("blocks.0.", "blocks.0._fsdp_wrapped_module._orig_mod."),
        lambda name: f"base_model.model.{name}",
        lambda name: f"module.base_model.model.{name}",
    ],
)
def test_wrappers_change_no_name(wrap):
    wrapped = {wrap(name): size for name, size in MODEL.items()}
    for pair in ((MODEL, wrapped), (wrapped, MODEL)):
        found = aligned(*pair)
        assert list(found.pairs) == list(pair[0])
        assert list(found.pairs.values()) == list(pair[1])
        assert (dict(found.renamed), found.removed, found.added) == ({}, (), ())


def test_lora_adds_its_own_and_leaves_the_rest():
    adapted = {
        "base_model.model.embed.weight": 640,
        "base_model.model.blocks.0.norm.weight": 8,
        "base_model.model.blocks.0.norm.bias": 8,
        "base_model.model.blocks.0.w.base_layer.weight": 64,
        "base_model.model.blocks.0.w.lora_A.default.weight": 16,
        "base_model.model.blocks.0.w.lora_B.default.weight": 16,
        "base_model.model.head.w": 80,
    }
    found = aligned(MODEL, adapted)
    assert found.pairs["blocks.0.w.weight"] == "base_model.model.blocks.0.w.base_layer.weight"
    assert len(found.pairs) == len(MODEL)
    assert [name.rpartition("w.")[2] for name in found.added] == ["lora_A.default.weight", "lora_B.default.weight"]


def test_what_was_renamed_is_told_by_place_and_size():
    found = aligned(MODEL, {name.replace("norm.weight", "ln.gamma").replace("norm.bias", "ln.beta"): size
                            for name, size in MODEL.items()})  # fmt: skip
    assert found.renamed == {"blocks.0.norm.weight": "blocks.0.ln.gamma", "blocks.0.norm.bias": "blocks.0.ln.beta"}
    assert (found.removed, found.added) == ((), ())


def test_a_model_renamed_as_a_whole_is_the_same_model():
    found = aligned(MODEL, {f"net.layer{at}": size for at, size in enumerate(MODEL.values())})
    assert list(found.pairs.values()) == [f"net.layer{at}" for at in range(len(MODEL))]


def test_another_size_is_another_parameter():
    found = aligned(MODEL, MODEL | {"head.w": 90})
    assert (found.removed, found.added) == (("head.w",), ("head.w",))


def test_a_weight_is_no_bias_whatever_its_size():
    found = aligned({"a.weight": 8, "c": 1}, {"b.bias": 8, "c": 1})
    assert (found.removed, found.added) == (("a.weight",), ("b.bias",))


def test_one_of_many_that_has_the_size_was_not_renamed():
    found = aligned({"a": 8, "c": 1}, {"p": 2, "q": 8, "r": 4, "c": 1})
    assert (found.removed, found.added) == (("a",), ("p", "q", "r"))


def test_names_that_only_wrappers_tell_apart_stay_whole():
    assert plain(dict.fromkeys(["a._orig_mod.w", "a.w", "b._orig_mod.w"])) == {
        "a._orig_mod.w": "a._orig_mod.w",
        "a.w": "a.w",
        "b._orig_mod.w": "b.w",
    }


def test_nothing_aligns_with_nothing():
    assert dict(aligned({}, {}).pairs) == {}
    assert aligned(MODEL, {}).removed == tuple(MODEL)
