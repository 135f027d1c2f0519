"""Every model type of the installed transformers, with a configuration made small by the names of its settings."""

import copy
import os
import re
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import nn

from tests.norms_table.inputs import NotBuiltError, batches, loss

#: What settings are set to, by patterns of their names of which the first that fits counts.
SIZES: tuple[tuple[int, str], ...] = (
    (2, r"num_key_value_heads num_kv_heads num_global_key_value_heads swa_num_key_value_heads n_head_kv"),
    (8, r"(qk_)?(rope|nope)_head_dim rotary_dim (v|qk)_head_dim head_dim head_size d_kv attention_head_size"),
    (8, r"kv_channels global_head_dim key_value_length d_head"),
    (4, r"num_(\w+_)?attention_heads (encoder|decoder)_attention_heads num_heads n_heads? attention_heads nhead"),
    (4, r"linear_(num_)?(key|value)_heads linear_num_\w+_heads"),
    (8, r"linear_(key|value)_head_dim mamba_n_heads mamba_num_heads n_mamba_heads mamba_d_head mamba_head_dim"),
    (8, r"(mamba_)?(d_state|state_size|ssm_state_size)"),
    (2, r"(mamba_)?n_groups mamba_ngroups ngroups multi_query_group_num"),
    (16, r"(q|kv|o)_lora_rank lora_rank"),
    (2, r"num_experts_per_tok moe_topk num_selected_experts moe_k top_k_experts"),
    (4, r"n_routed_experts num_(local_)?experts n_experts num_moe_experts moe_num_experts"),
    (1, r"n_group topk_group num_expert_groups first_k_dense_replace moe_layer_start_index num_dense_layers"),
    (2, r"(encoder|decoder)_layers num_(\w+_)?(hidden_)?layers n_layers? depth num_blocks layers num_hidden_groups"),
    (48, r"(encoder|decoder)_ffn_dim (\w+_)?intermediate_size ffn_dim d_ff n_inner ffn_hidden_size mlp_dim"),
    (48, r"dim_feedforward inner_dim moe_intermediate_dim d_inner feed_forward_size"),
    (64, r"max_position_embeddings n_positions max_(source|target)_positions n_ctx max_seq_len max_sequence_length"),
    (64, r"model_max_length context_length codebook_size"),
    (99, r"(\w+_)?vocab_size num_embeddings n_codes"),
    (32, r"image_size img_size input_size"),
    (8, r"(\w+_)?patch_size"),
    (32, r"embedding_size word_embed_proj_dim embed_dim embedding_dim projection_dim out_hidden_size"),
    (32, r"cross_attention_hidden_size (\w*_)?hidden_size d_model n_embd model_dim hidden_dim dim d_embed width"),
    (32, r"emb_dim encoder_hidden_dim decoder_hidden_dim upsample_groups"),
)
#: Settings that hide parts of a network at random, or keep what is of no use here.
PLAIN = {
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "apply_spec_augment": False,
    "use_cache": False,
}
#: More numbers than this are not built.
MOST = 40_000_000
#: What is made small, tried in this order: a family checks that its settings fit each other, in a way of its own.
EVERYTHING, NO_IMAGES, FEW_LAYERS, NOTHING = range(4)
_IMAGES = r"image_size|img_size|input_size|(\w+_)?patch_size"
_LAYERS = r"(encoder|decoder)_layers|num_(\w+_)?(hidden_)?layers|n_layers?|depth|num_blocks|layers|num_hidden_groups"
#: Settings that look like sizes and are none.
_NO_SIZES = r"num_feat_extract_layers|num_conv\w*_layers|num_feature_levels|num_adapter_layers|num_channels"


def model_types() -> list[str]:
    """Return all model types that have a model of their own."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return sorted(MODEL_MAPPING_NAMES)


def small_config(model_type: str, attempt: int) -> Any:
    """Return a small configuration of a type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    cls = CONFIG_MAPPING[model_type]
    overrides = OVERRIDES.get(model_type, {})
    given = {**(_shrunk(cls(), attempt) if attempt < NOTHING else {}), **overrides}
    if "layers_block_type" in overrides:
        given.pop("layer_types", None)
    config = cls(**given)
    _settle(config)
    return config


def _shrunk(config: Any, attempt: int) -> dict[str, Any]:
    """Return the settings of a configuration, made small; parts of it likewise."""
    found: dict[str, Any] = {}
    for name, value in vars(config).items():
        if not name.startswith("_") and name not in SKIPPED and name not in getattr(type(config), "attribute_map", {}):
            small = _small(config, name, value, attempt)
            if small is not None:
                found[name] = small
    if attempt < FEW_LAYERS:
        found |= {name: token for name, token in _TOKENS.items() if isinstance(getattr(config, name, None), int)}
        if getattr(config, "kv_lora_rank", None) and "num_attention_heads" in found:
            found["num_key_value_heads"] = found["num_attention_heads"]
    kinds = vars(config).get(getattr(type(config), "attribute_map", {}).get("layer_types", "layer_types"))
    if isinstance(kinds, list) and kinds:
        distinct = list(dict.fromkeys(kinds))
        found["layer_types"] = (distinct * 2)[: max(2, len(distinct))]
        found["num_hidden_layers"] = len(found["layer_types"])
    return found


_TOKENS = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "image_token_id": 97,
    "video_token_id": 96,
    "audio_token_id": 95,
    "image_token_index": 97,
    "audio_token_index": 95,
}


def _small(config: Any, name: str, value: Any, attempt: int) -> Any:
    """Return what a setting is to be; None where it stays."""
    if hasattr(value, "to_dict") and hasattr(value, "model_type"):
        if value.model_type == "timm_backbone":
            return None
        return {**_shrunk(value, attempt), **OVERRIDES.get(value.model_type, {}), "model_type": value.model_type}
    if name == "depths" and isinstance(value, list):
        return [1] * len(value)
    if isinstance(value, bool) or re.fullmatch(_NO_SIZES, name):
        return None
    if attempt == FEW_LAYERS:
        return 2 if isinstance(value, int) and value > 2 and re.fullmatch(_LAYERS, name) else None
    if attempt == NO_IMAGES and re.fullmatch(_IMAGES, name):
        return None
    if value is None:
        return {"head_dim": 8, "num_key_value_heads": 2}.get(name)
    if not isinstance(value, int) or (name == "embed_dim" and isinstance(getattr(config, "num_heads", 0), list)):
        return None
    size = next((size for size, words in SIZES if any(re.fullmatch(word, name) for word in words.split())), None)
    return size if size is not None and size < value and value > 0 else None


SKIPPED = {"transformers_version", "architectures", "id2label", "label2id", "num_labels"}


def _settle(config: Any) -> None:
    for name, value in PLAIN.items():
        if hasattr(config, name):
            setattr(config, name, value)
    config._attn_implementation = "eager"
    rope = getattr(config, "rope_parameters", None)
    for part in [rope, *(rope or {}).values()] if isinstance(rope, dict) else []:
        if isinstance(part, dict) and (
            part.get("mrope_section") or ("rope_type" in part and re.search("glm|vl|omni|ocr", config.model_type))
        ):
            width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            pairs = int(width * part.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0))) // 2
            part["mrope_section"] = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    for value in vars(config).values():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            _settle(value)


_SERIES = {"prediction_length": 8, "context_length": 16, "lags_sequence": [1, 2], "num_time_features": 1}
#: It takes a new seed from the system for each pass.
_REFORMER_DROPS = ("hidden_dropout_prob", "lsh_attention_probs_dropout_prob", "local_attention_probs_dropout_prob")
#: What a type needs besides.
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2},
    "mamba2": {
        "num_heads": 8,
        "head_dim": 8,
        "n_groups": 2,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "vocab_size": 99,
    },
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2},
    "granitemoehybrid": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_n_groups": 2,
        "layer_types": ["mamba", "attention"],
    },
    "zamba2": {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "mamba", "hybrid"],
        "mamba_headdim": 8,
        "n_mamba_heads": 8,
        "mamba_ngroups": 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention"],
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "n_groups": 2,
    },
    "esm": {"vocab_size": 33, "pad_token_id": 1},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "autoformer": _SERIES,
    "informer": _SERIES,
    "time_series_transformer": _SERIES,
    "reformer": {"axial_pos_embds": False, "hash_seed": 0, **dict.fromkeys(_REFORMER_DROPS, 0.0)},
    "gemma3n_text": {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 99},
    "gemma4_text": {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 99},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
}


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
        raise NotBuiltError(f"{count / 1e6:.0f} million parameters at the small size")
    torch.manual_seed(3)
    return cls(copy.deepcopy(config)).float().train()


def runnable(model_type: str) -> tuple[Any, dict[str, Any]]:
    """Return a configuration and a batch with which a model of the type is built and runs.

    Raises:
        NotBuiltError: nothing that was tried does.
    """
    why = ""
    for attempt in range(NOTHING + 1):
        try:
            config = small_config(model_type, attempt)
            model = build(config)
            given = _first_that_runs(model, config)
            return config, given
        except Exception as error:  # a family's own checks, of which there are hundreds
            why = why or f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    raise NotBuiltError(why)


def _first_that_runs(model: nn.Module, config: Any) -> dict[str, Any]:
    first: Exception | None = None
    for given in batches(model, config):
        try:
            loss(model, given).backward()
            return given
        except Exception as error:
            first = first or error
    raise first or NotBuiltError("takes nothing that is drawn here")
