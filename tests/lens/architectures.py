"""Hugging Face architectures at sizes that take a moment, with what the lens has to say of each norm, by hand.

The placements were read from the forward methods of transformers. A pattern ends a norm's path; ``{}`` in it is the
number of the block that the norm is in, and a norm without it is in none.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tests.oracles import Case


@dataclass(frozen=True)
class Architecture:
    """One model.

    Attributes:
        model_type: of transformers.
        cls: the class that is built.
        sizes: of its configuration.
        norms: end of the path to placement.
        count: how many norms there are.
        composite: whether a norm is written in Python, of several operations (RMSNorm).
    """

    model_type: str
    cls: str
    sizes: dict[str, Any]
    norms: dict[str, str]
    count: int
    composite: bool = False

    def values(self) -> dict[str, Any]:
        """What its ``config.json`` holds."""
        return {"model_type": self.model_type, "architectures": [self.cls], **self.sizes}

    def expected(self, paths: list[str]) -> dict[str, tuple[str, int | None]]:
        """Return placement and block of each path that a pattern ends."""
        found = {}
        for path in paths:
            for pattern, placement in self.norms.items():
                for block in (0, 1) if "{}" in pattern else (None,):
                    if f".{path}".endswith(f".{pattern.format(block)}"):
                        found[path] = (placement, block)
        return found


_TEXT = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_TEXT, "num_key_value_heads": 1, "attention_dropout": 0.1}
_HEADS = {**_GROUPED, "head_dim": 8}
_PAIR = {
    "vocab_size": 50,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
    "dropout": 0.1,
}
_SOUND = {
    "vocab_size": 20,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 8],
    "conv_stride": [5, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
_LLAMA = {"{}.input_layernorm": "pre_branch", "{}.post_attention_layernorm": "pre_branch", "model.norm": "final"}
_SANDWICH = {
    "{}.input_layernorm": "pre_branch",
    "{}.post_attention_layernorm": "post_branch",
    "{}.pre_feedforward_layernorm": "pre_branch",
    "{}.post_feedforward_layernorm": "post_branch",
    "model.norm": "final",
}
_QK = {"{}.self_attn.q_norm": "qk", "{}.self_attn.k_norm": "qk"}


def _pair(placement: str, **further: str) -> dict[str, str]:
    """Norms of an encoder and a decoder with BART's names."""
    shared = ("self_attn_layer_norm", "final_layer_norm")
    encoder = dict.fromkeys([f"encoder.layers.{{}}.{name}" for name in shared], placement)
    decoder = dict.fromkeys([f"decoder.layers.{{}}.{name}" for name in (*shared, "encoder_attn_layer_norm")], placement)
    ends = {f"{stack}.{name}": place for name, place in further.items() for stack in ("encoder", "decoder")}
    return {**encoder, **decoder, **ends}


ARCHITECTURES = {
    "BERT": Architecture(
        "bert",
        "BertForMaskedLM",
        _TEXT,
        {
            "embeddings.LayerNorm": "embed",
            "{}.attention.output.LayerNorm": "post_add",
            "{}.output.LayerNorm": "post_add",
            "transform.LayerNorm": "unknown",  # in the head
        },
        6,
    ),
    "BART": Architecture(
        "bart",
        "BartForConditionalGeneration",
        {**_PAIR, "max_position_embeddings": 64},
        _pair("post_add", layernorm_embedding="embed"),
        12,
    ),
    "MBart": Architecture(
        "mbart",
        "MBartForConditionalGeneration",
        {**_PAIR, "max_position_embeddings": 64},
        _pair("pre_branch", layernorm_embedding="embed", layer_norm="final"),
        14,
    ),
    "T5": Architecture(
        "t5",
        "T5ForConditionalGeneration",
        {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
        {f"block.{{}}.layer.{k}.layer_norm": "pre_branch" for k in range(3)} | {"final_layer_norm": "final"},
        12,
        composite=True,
    ),
    "GPT-2": Architecture(
        "gpt2",
        "GPT2LMHeadModel",
        {
            "vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 1,
            "eos_token_id": 2,
        },
        {"h.{}.ln_1": "pre_branch", "h.{}.ln_2": "pre_branch", "ln_f": "final"},
        5,
    ),
    "OPT before": Architecture(
        "opt",
        "OPTForCausalLM",
        {**_TEXT, "ffn_dim": 32, "word_embed_proj_dim": 16, "do_layer_norm_before": True},
        {
            "{}.self_attn_layer_norm": "pre_branch",
            "{}.final_layer_norm": "pre_branch",
            "decoder.final_layer_norm": "final",
        },
        5,
    ),
    "OPT after": Architecture(
        "opt",
        "OPTForCausalLM",
        {**_TEXT, "ffn_dim": 32, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
        {"{}.self_attn_layer_norm": "post_add", "{}.final_layer_norm": "post_add"},
        4,
    ),
    "Llama": Architecture("llama", "LlamaForCausalLM", _GROUPED, _LLAMA, 5, composite=True),
    "Qwen2": Architecture("qwen2", "Qwen2ForCausalLM", _GROUPED, _LLAMA, 5, composite=True),
    "Qwen3": Architecture("qwen3", "Qwen3ForCausalLM", _HEADS, {**_LLAMA, **_QK}, 9, composite=True),
    "Mistral": Architecture("mistral", "MistralForCausalLM", _GROUPED, _LLAMA, 5, composite=True),
    "Mixtral": Architecture(
        "mixtral",
        "MixtralForCausalLM",
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
        _LLAMA,
        5,
        composite=True,
    ),
    "Gemma": Architecture("gemma", "GemmaForCausalLM", _HEADS, _LLAMA, 5, composite=True),
    "Gemma 2": Architecture("gemma2", "Gemma2ForCausalLM", _HEADS, _SANDWICH, 9, composite=True),
    "Gemma 3": Architecture(
        "gemma3_text", "Gemma3ForCausalLM", _HEADS, {**_SANDWICH, **_QK}, 13, composite=True
    ),
    "ViT": Architecture(
        "vit",
        "ViTForImageClassification",
        {
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
            "image_size": 16, "patch_size": 4, "hidden_dropout_prob": 0.1,
        },
        {"{}.layernorm_before": "pre_branch", "{}.layernorm_after": "pre_branch", "vit.layernorm": "final"},
        5,
    ),
    "Swin": Architecture(
        "swin",
        "SwinForImageClassification",
        {
            "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 2, "image_size": 16, "patch_size": 2,
            "drop_path_rate": 0.1,
        },
        {
            "embeddings.norm": "embed",
            "blocks.{}.layernorm_before": "pre_branch",
            "blocks.{}.layernorm_after": "pre_branch",
            "downsample.norm": "unknown",  # between stages
            "swin.layernorm": "final",
        },
        11,
    ),
    "ConvNeXt": Architecture(
        "convnext",
        "ConvNextForImageClassification",
        {
            "hidden_sizes": [8, 16], "depths": [2, 2], "num_stages": 2, "image_size": 16, "patch_size": 2,
            "layer_scale_init_value": 0.1,
        },
        {
            "embeddings.layernorm": "embed",
            "layers.{}.layernorm": "in_branch",  # a convolution precedes it
            "downsampling_layer.0": "unknown",
            "convnext.layernorm": "final",
        },
        7,
    ),
    "ResNet bottleneck": Architecture(
        "resnet",
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2], "layer_type": "bottleneck"},
        {
            "embedder.embedder.normalization": "embed",
            "layers.{}.shortcut.normalization": "unknown",
            "layers.{}.layer.0.normalization": "in_branch",
            "layers.{}.layer.1.normalization": "in_branch",
            "layers.{}.layer.2.normalization": "post_branch",
        },
        12,
    ),
    "ResNet basic": Architecture(
        "resnet",
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "layer_type": "basic"},
        {
            "embedder.embedder.normalization": "embed",
            "layers.{}.shortcut.normalization": "unknown",
            "layers.{}.layer.0.normalization": "in_branch",
            "layers.{}.layer.1.normalization": "post_branch",
        },
        10,
    ),
    "wav2vec 2.0": Architecture(
        "wav2vec2",
        "Wav2Vec2ForCTC",
        {**_SOUND, "do_stable_layer_norm": False, "feat_extract_norm": "group"},
        {
            "conv_layers.0.layer_norm": "unknown",
            "feature_projection.layer_norm": "unknown",
            "encoder.layer_norm": "post_add",  # of the convolution of positions
            "layers.{}.layer_norm": "post_add",
            "layers.{}.final_layer_norm": "post_add",
        },
        7,
    ),
    "wav2vec 2.0 stable": Architecture(
        "wav2vec2",
        "Wav2Vec2ForCTC",
        {**_SOUND, "do_stable_layer_norm": True, "feat_extract_norm": "layer"},
        {
            "conv_layers.0.layer_norm": "unknown",
            "conv_layers.1.layer_norm": "unknown",
            "feature_projection.layer_norm": "unknown",
            "encoder.layer_norm": "final",
            "layers.{}.layer_norm": "pre_branch",
            "layers.{}.final_layer_norm": "pre_branch",
        },
        8,
    ),
    "Whisper": Architecture(
        "whisper",
        "WhisperForConditionalGeneration",
        {**_PAIR, "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 16},
        _pair("pre_branch", layer_norm="final"),
        12,
    ),
}  # fmt: skip


def case_of(module: nn.Module) -> Case:
    """Return the oracle's description of a norm of one of these models, from what the class is documented to do."""
    weight = module.weight.detach().clone()
    if isinstance(module, nn.BatchNorm2d):
        return Case(dims=(0, 2, 3), eps=module.eps, gain=weight.view(-1, 1, 1))
    if isinstance(module, nn.GroupNorm):
        groups = module.num_groups
        gain = weight.view(groups, -1, 1)
        return Case((-2, -1), module.eps, gain=gain, to_view=lambda t: t.reshape(t.shape[0], groups, -1, t.shape[-1]))
    if getattr(module, "data_format", None) == "channels_first":  # ConvNeXt's
        return Case(dims=(1,), eps=module.eps, gain=weight.view(-1, 1, 1))
    if type(module).__name__.endswith("LayerNorm") and not type(module).__name__.startswith("T5"):
        return Case(dims=(-1,), eps=module.eps, gain=weight)
    assert "RMSNorm" in type(module).__name__ or type(module).__name__ == "T5LayerNorm"
    eps = getattr(module, "variance_epsilon", None) or module.eps
    return Case(dims=(-1,), eps=eps, centered=False, gain=weight + ("Gemma" in type(module).__name__))


def is_norm(module: nn.Module) -> bool:
    """Whether a module is one of the normalizations that these models are made of, by their classes."""
    named = type(module).__name__.endswith(("LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm2d"))
    return named and next(module.children(), None) is None


def randomized(model: nn.Module) -> nn.Module:
    """Give each norm another gain and shift than one and zero, which would hide that they are there."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in model.modules():
            for parameter in module.parameters(recurse=False) if is_norm(module) else ():
                parameter.add_(0.3 * torch.rand(parameter.shape, generator=generator) - 0.1)
    return model
