"""Where norms stand in known families of networks, for runs of which only compiled passes are seen.

Elsewhere the graph tells (``architecture``), of any network. An entry maps the class that holds a norm to the norm's
path below it and its placement. Where the arrangement depends on how the class was built, it maps to a function of the
instance. A module that is not ours may also say it itself, in an attribute ``placements``.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import nn

from gradlens.lens.world import class_of

#: Path of a norm below the class that holds it, to its placement.
Placements: TypeAlias = Mapping[str, str]
#: Class that holds norms to their placements, or to a function that tells them from an instance.
Family: TypeAlias = Mapping[str, Placements | Callable[[nn.Module], Placements]]

_LLAMA_BLOCK = {"input_layernorm": "pre_branch", "post_attention_layernorm": "pre_branch"}
#: Gemma 2 and 3: a norm at either end of each branch.
_SANDWICH = {
    "input_layernorm": "pre_branch",
    "post_attention_layernorm": "post_branch",
    "pre_feedforward_layernorm": "pre_branch",
    "post_feedforward_layernorm": "post_branch",
}
_QK = {"q_norm": "qk", "k_norm": "qk"}
_FINAL = {"norm": "final"}


def _all(placement: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, placement)


def _torch_block(block: nn.Module) -> Placements:
    return _all("pre_branch" if block.norm_first else "post_add", "norm1", "norm2", "norm3")


def _opt_block(block: nn.Module) -> Placements:
    placement = "pre_branch" if block.do_layer_norm_before else "post_add"  # the 350M model is the one after
    return _all(placement, "self_attn_layer_norm", "final_layer_norm")


def _bart(name: str) -> Family:
    """BART's encoder and decoder, and those copied from it, which put each norm after the addition."""
    attention = ("self_attn_layer_norm", "encoder_attn_layer_norm")
    return {
        f"{name}EncoderLayer": _all("post_add", attention[0], "final_layer_norm"),
        f"{name}DecoderLayer": _all("post_add", *attention, "final_layer_norm"),
        f"{name}Encoder": {"layernorm_embedding": "embed"},
        f"{name}Decoder": {"layernorm_embedding": "embed"},
    }


def _pre_bart(name: str) -> Family:
    """The same names, with each norm first on its branch and one more after the last block."""
    stack = {"layernorm_embedding": "embed", "layer_norm": "final"}
    attention = ("self_attn_layer_norm", "encoder_attn_layer_norm")
    return {
        f"{name}EncoderLayer": _all("pre_branch", attention[0], "final_layer_norm"),
        f"{name}DecoderLayer": _all("pre_branch", *attention, "final_layer_norm"),
        f"{name}Encoder": stack,
        f"{name}Decoder": stack,
    }


def _bert(name: str) -> Family:
    return {
        f"{name}Embeddings": {"LayerNorm": "embed"},
        f"{name}SelfOutput": {"LayerNorm": "post_add"},
        f"{name}Output": {"LayerNorm": "post_add"},
    }


def _llama(name: str) -> Family:
    return {f"{name}DecoderLayer": _LLAMA_BLOCK, f"{name}Model": _FINAL, f"{name}Attention": _QK}


FAMILIES: dict[str, Family] = {
    "torch.nn": {
        "TransformerEncoderLayer": _torch_block,
        "TransformerDecoderLayer": _torch_block,
        "TransformerEncoder": _FINAL,
        "TransformerDecoder": _FINAL,
    },
    "BERT": _bert("Bert"),
    "RoBERTa": _bert("Roberta"),
    "BART": _bart("Bart"),
    "MBart": _pre_bart("MBart"),
    "Whisper": _pre_bart("Whisper"),
    "T5": {
        "T5LayerSelfAttention": {"layer_norm": "pre_branch"},
        "T5LayerCrossAttention": {"layer_norm": "pre_branch"},
        "T5LayerFF": {"layer_norm": "pre_branch"},
        "T5Stack": {"final_layer_norm": "final"},
    },
    "GPT-2": {
        "GPT2Block": _all("pre_branch", "ln_1", "ln_2", "ln_cross_attn"),
        "GPT2Model": {"ln_f": "final"},
    },
    "OPT": {"OPTDecoderLayer": _opt_block, "OPTDecoder": {"final_layer_norm": "final"}},
    "Llama": _llama("Llama"),
    "Qwen2": _llama("Qwen2"),
    "Qwen3": _llama("Qwen3"),
    "Mistral": _llama("Mistral"),
    "Mixtral": _llama("Mixtral"),
    "Gemma": _llama("Gemma"),
    "Gemma 2": {"Gemma2DecoderLayer": _SANDWICH, "Gemma2Model": _FINAL},
    "Gemma 3": {"Gemma3DecoderLayer": _SANDWICH, "Gemma3Attention": _QK, "Gemma3TextModel": _FINAL},
    "ViT": {
        "ViTLayer": _all("pre_branch", "layernorm_before", "layernorm_after"),
        "ViTModel": {"layernorm": "final"},
    },
    "Swin": {
        "SwinEmbeddings": {"norm": "embed"},
        "SwinLayer": _all("pre_branch", "layernorm_before", "layernorm_after"),
        "SwinModel": {"layernorm": "final"},
    },
    "ConvNeXt": {"ConvNextEmbeddings": {"layernorm": "embed"}, "ConvNextModel": {"layernorm": "final"}},
    "ResNet": {
        "ResNetEmbeddings": {"embedder.normalization": "embed"},
        "ResNetBasicLayer": {"layer.1.normalization": "post_branch"},
        "ResNetBottleNeckLayer": {"layer.2.normalization": "post_branch"},
    },
    # config.do_stable_layer_norm chooses between two pairs of classes with the same names of norms.
    "wav2vec 2.0": {
        "Wav2Vec2EncoderLayer": _all("post_add", "layer_norm", "final_layer_norm"),
        "Wav2Vec2Encoder": {"layer_norm": "embed"},
        "Wav2Vec2EncoderLayerStableLayerNorm": _all("pre_branch", "layer_norm", "final_layer_norm"),
        "Wav2Vec2EncoderStableLayerNorm": {"layer_norm": "final"},
        "Wav2Vec2AttnAdapterLayer": {"norm": "pre_branch"},
    },
}
_BY_CLASS = {name: places for family in FAMILIES.values() for name, places in family.items()}

#: Classes that come in lists of equals and are no residual blocks: nothing is added beside them.
NOT_BLOCKS = frozenset({"Wav2Vec2LayerNormConvLayer", "Wav2Vec2NoLayerNormConvLayer", "Wav2Vec2AdapterLayer"})


def placements_of(module: nn.Module) -> Placements:
    """Return where the norms below a module stand, by their paths below it; empty where that is not known.

    A subclass of a known class counts as long as it does not replace ``forward``, which is what arranges the norms.
    """
    cls = class_of(module)
    declared = getattr(module, "placements", None)
    if isinstance(declared, Mapping):
        return declared
    for base in cls.__mro__:
        if base.__name__ in _BY_CLASS:
            places = _BY_CLASS[base.__name__] if cls.forward is getattr(base, "forward", None) else {}
            return places(module) if callable(places) else places
    return {}


def declares(module: nn.Module) -> bool:
    """Whether a module says itself where its norms stand."""
    return isinstance(getattr(module, "placements", None), Mapping)


def is_block(cls: type[nn.Module]) -> bool:
    """Whether a run of modules of this class is a stack of residual blocks, as far as its name tells."""
    return cls.__name__ not in NOT_BLOCKS


def is_stage(module: nn.Module) -> bool:
    """Whether the class's name says that it is a stage, which holds a stack of blocks and the way to the next one."""
    return class_of(module).__name__.endswith("Stage")
