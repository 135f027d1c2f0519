"""Every model type of the installed transformers, with a configuration made small by the names of its settings."""

import copy
import inspect
import os
import re
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import Tensor, nn

#: Settings by the end of their names, the first that fits: what they are set to.
SIZES: tuple[tuple[str, int], ...] = (
    (r"num_key_value_heads|num_kv_heads|num_global_key_value_heads|swa_num_key_value_heads|n_head_kv|multi_query_group_num", 2),
    (r"(qk_rope|rope)_head_dim", 8),
    (r"(qk_nope|v|qk|nope)_head_dim|head_dim|head_size|d_kv|attention_head_size|kv_channels|global_head_dim|key_value_length|d_head", 8),
    (r"num_(\w+_)?attention_heads|(encoder|decoder)_attention_heads|num_heads|n_heads?|attention_heads|n_head|nhead|num_linear_attention_heads", 4),
    (r"linear_(num_)?(key|value)_heads|linear_num_\w+_heads", 4),
    (r"linear_(key|value)_head_dim", 8),
    (r"mamba_n_heads|mamba_num_heads|n_mamba_heads", 8),
    (r"mamba_d_head|mamba_head_dim", 8),
    (r"(mamba_)?(d_state|state_size|ssm_state_size)|mamba_d_state", 8),
    (r"(mamba_)?n_groups|mamba_ngroups|ngroups", 2),
    (r"(q|kv|o)_lora_rank|lora_rank", 16),
    (r"num_experts_per_tok|moe_topk|num_selected_experts|moe_k|top_k_experts", 2),
    (r"n_routed_experts|num_(local_)?experts|n_experts|num_moe_experts|moe_num_experts", 4),
    (r"n_group|topk_group|num_expert_groups", 1),
    (r"first_k_dense_replace|moe_layer_start_index|num_dense_layers", 1),
    (r"(encoder|decoder)_layers|num_(\w+_)?(hidden_)?layers|n_layers?|num_decoder_layers|depth|num_blocks|layers|num_hidden_groups", 2),
    (r"(encoder|decoder)_ffn_dim|(\w+_)?intermediate_size|ffn_dim|d_ff|n_inner|ffn_hidden_size|mlp_dim|dim_feedforward|inner_dim|moe_intermediate_dim|d_inner|feed_forward_size", 48),
    (r"max_position_embeddings|n_positions|max_(source|target)_positions|n_ctx|max_seq_len|max_sequence_length|model_max_length|context_length", 64),
    (r"(\w+_)?vocab_size|codebook_size|num_embeddings|n_codes", 99),
    (r"image_size|img_size|input_size", 32),
    (r"(\w+_)?patch_size", 8),
    (r"embedding_size|word_embed_proj_dim|embed_dim|embedding_dim|projection_dim|out_hidden_size|cross_attention_hidden_size", 32),
    (r"(\w*_)?hidden_size|d_model|n_embd|model_dim|hidden_dim|dim|d_embed|width|emb_dim|encoder_hidden_dim|decoder_hidden_dim", 32),
)
#: Settings that hide parts of a network at random, or keep what is of no use here.
PLAIN = {"layerdrop": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "apply_spec_augment": False, "use_cache": False}
#: More numbers than this are not built.
MOST = 40_000_000
BATCH, LENGTH = 2, 7


class NotBuilt(Exception):
    """A model that is not built small, or does not run as it is."""


def model_types() -> list[str]:
    """Return all model types that have a model of their own."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return sorted(MODEL_MAPPING_NAMES)


def small_config(model_type: str) -> Any:
    """Return a small configuration of a type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    cls = CONFIG_MAPPING[model_type]
    given = {**_shrunk(cls()), **OVERRIDES.get(model_type, {})}
    config = cls(**given)
    _settle(config)
    return config


def _shrunk(config: Any) -> dict[str, Any]:
    """Return the settings of a configuration, made small; parts of it likewise."""
    found: dict[str, Any] = {}
    aliases = set(getattr(type(config), "attribute_map", {}))
    layers = 2
    for name, value in vars(config).items():
        if name.startswith("_") or name in aliases or name in SKIPPED:
            continue
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            found[name] = {**_shrunk(value), "model_type": value.model_type}
        elif isinstance(value, bool) or not isinstance(value, int):
            continue
        else:
            size = next((size for pattern, size in SIZES if re.fullmatch(pattern, name)), None)
            if size is not None and 0 < size < value:
                found[name] = size
    kinds = getattr(config, "layer_types", None)
    if isinstance(kinds, list) and kinds:
        distinct = list(dict.fromkeys(kinds))
        found["layer_types"] = (distinct * 2)[: max(2, len(distinct))]
        layers = len(found["layer_types"])
        if "num_hidden_layers" in found or hasattr(config, "num_hidden_layers"):
            found["num_hidden_layers"] = layers
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "image_token_id"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value >= 99:
            found[name] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "image_token_id": 97}.get(name, 1)
    return found


SKIPPED = {"transformers_version", "architectures", "id2label", "label2id", "num_labels"}


def _settle(config: Any) -> None:
    for name, value in PLAIN.items():
        if hasattr(config, name):
            setattr(config, name, value)
    config._attn_implementation = "eager"
    for value in vars(config).values():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            _settle(value)


#: What a type needs besides.
OVERRIDES: dict[str, dict[str, Any]] = {}


def build(config: Any) -> nn.Module:
    """Build the model without a head, in float32, in training."""
    from transformers import AutoModel

    found = AutoModel._model_mapping[type(config)]
    cls = found[0] if isinstance(found, tuple | list) else found
    with torch.device("meta"):
        try:
            count = sum(parameter.numel() for parameter in cls(copy.deepcopy(config)).parameters())
        except NotImplementedError:
            count = 0
        except RuntimeError as error:
            if "meta" not in str(error):
                raise
            count = 0
    if count > MOST:
        raise NotBuilt(f"{count / 1e6:.0f} million parameters at the small size")
    torch.manual_seed(3)
    return cls(copy.deepcopy(config)).float().train()


def batch(model: nn.Module, config: Any) -> dict[str, Tensor]:
    """Draw what a model takes, from its forward method's names."""
    torch.manual_seed(5)
    takes = inspect.signature(type(model).forward).parameters
    text = config.get_text_config()
    vocab = min(value for value in (getattr(text, "vocab_size", 99) or 99, 99) if isinstance(value, int))
    tokens = lambda: torch.randint(3, max(4, vocab - 4), (BATCH, LENGTH))  # noqa: E731
    main = getattr(model, "main_input_name", "input_ids")
    given: dict[str, Tensor] = {}
    if "input_ids" in takes:
        given["input_ids"] = tokens()
    elif main in takes or main in DRAWN:
        given[main] = DRAWN[main](config)
    if getattr(config, "is_encoder_decoder", False):
        for name in ("decoder_input_ids",):
            if name in takes:
                given[name] = tokens()
    if main != "input_ids" and main in DRAWN and main in takes and main not in given:
        given[main] = DRAWN[main](config)
    return {**given, **EXTRA.get(config.model_type, lambda c: {})(config)}


def _pixels(config: Any) -> Tensor:
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", None) or 32
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return torch.randn(BATCH, getattr(vision, "num_channels", 3) or 3, int(height), int(width))


DRAWN: dict[str, Any] = {
    "pixel_values": _pixels,
    "input_values": lambda config: torch.randn(BATCH, 1200),
    "input_features": lambda config: torch.randn(BATCH, getattr(config, "num_mel_bins", 80), 2 * getattr(config, "max_source_positions", 64)),
    "pixel_values_videos": lambda config: torch.randn(BATCH, getattr(config, "num_frames", 4), 3, 32, 32),
    "past_values": lambda config: torch.randn(BATCH, getattr(config, "context_length", 32) or 32, getattr(config, "num_input_channels", 1)),
}
EXTRA: dict[str, Any] = {}


def loss(model: nn.Module, given: dict[str, Any]) -> Tensor:
    """Run the model and return a loss of all real tensors that it returns."""
    torch.manual_seed(11)
    generator = torch.Generator().manual_seed(12)
    total: Tensor | None = None
    for value in _tensors(model(**given)):
        if value.is_floating_point() and value.requires_grad:
            aim = torch.randn(value.shape, generator=generator)
            part = (value.float() * (0.5 + aim)).square().mean() + (value.float() * aim).mean()
            total = part if total is None else total + part
    if total is None:
        raise NotBuilt("no output with a gradient")
    return total


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        return [tensor for value in output.values() for tensor in _tensors(value)]
    if isinstance(output, list | tuple):
        return [tensor for value in output for tensor in _tensors(value)]
    return []
