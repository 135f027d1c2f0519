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
    (r"(qk_rope|rope)_head_dim|rotary_dim", 8),
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
    (r"codebook_size", 64),
    (r"(\w+_)?vocab_size|num_embeddings|n_codes", 99),
    (r"image_size|img_size|input_size", 32),
    (r"(\w+_)?patch_size", 8),
    (r"embedding_size|word_embed_proj_dim|embed_dim|embedding_dim|projection_dim|out_hidden_size|cross_attention_hidden_size", 32),
    (r"(\w*_)?hidden_size|d_model|n_embd|model_dim|hidden_dim|dim|d_embed|width|emb_dim|encoder_hidden_dim|decoder_hidden_dim", 32),
)
#: Settings that hide parts of a network at random, or keep what is of no use here.
PLAIN = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "apply_spec_augment": False, "use_cache": False}
#: More numbers than this are not built.
MOST = 80_000_000
BATCH, LENGTH = 2, 7
#: What is made small, tried in this order: a family checks that its settings fit each other, in a way of its own.
EVERYTHING, NO_IMAGES, FEW_LAYERS, NOTHING = range(4)
_IMAGES = r"image_size|img_size|input_size|(\w+_)?patch_size"
_LAYERS = r"(encoder|decoder)_layers|num_(\w+_)?(hidden_)?layers|n_layers?|num_decoder_layers|depth|num_blocks|layers|num_hidden_groups"
#: Settings that look like sizes and are none.
_NO_SIZES = r"num_feat_extract_layers|num_conv\w*_layers|num_feature_levels|num_adapter_layers|num_channels"


class NotBuilt(Exception):
    """A model that is not built small, or does not run as it is."""


def model_types() -> list[str]:
    """Return all model types that have a model of their own."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return sorted(MODEL_MAPPING_NAMES)


def small_config(model_type: str, attempt: int) -> Any:
    """Return a small configuration of a type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    cls = CONFIG_MAPPING[model_type]
    given = {**(_shrunk(cls(), attempt) if attempt < NOTHING else {}), **OVERRIDES.get(model_type, {})}
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
    kinds = getattr(config, "layer_types", None)
    own = getattr(type(config), "attribute_map", {}).get("layer_types", "layer_types")
    if isinstance(kinds, list) and kinds and not isinstance(getattr(type(config), own, None), property):
        distinct = list(dict.fromkeys(kinds))
        found["layer_types"] = (distinct * 2)[: max(2, len(distinct))]
        found["num_hidden_layers"] = len(found["layer_types"])
    return found


_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "image_token_id": 97,
           "video_token_id": 96, "audio_token_id": 95, "image_token_index": 97, "audio_token_index": 95}  # fmt: skip


def _small(config: Any, name: str, value: Any, attempt: int) -> Any:
    """Return what a setting is to be; None where it stays."""
    if hasattr(value, "to_dict") and hasattr(value, "model_type"):
        if value.model_type == "timm_backbone":
            return None
        return {**_shrunk(value, attempt), "model_type": value.model_type}
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
    size = next((size for pattern, size in SIZES if re.fullmatch(pattern, name)), None)
    return size if size is not None and size < value and value > 0 else None


SKIPPED = {"transformers_version", "architectures", "id2label", "label2id", "num_labels"}


def _settle(config: Any) -> None:
    for name, value in PLAIN.items():
        if hasattr(config, name):
            setattr(config, name, value)
    config._attn_implementation = "eager"
    rope = getattr(config, "rope_parameters", None)
    for part in [rope, *(rope or {}).values()] if isinstance(rope, dict) else []:
        if isinstance(part, dict) and (part.get("mrope_section") or ("rope_type" in part and re.search("glm|vl|omni|ocr", config.model_type))):
            width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            pairs = int(width * part.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0))) // 2
            part["mrope_section"] = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    for value in vars(config).values():
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            _settle(value)


#: What a type needs besides.
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2, "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 99},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2, "layer_types": ["mamba", "attention"]},
    "zamba2": {"num_hidden_layers": 3, "layer_types": ["mamba", "mamba", "hybrid"], "mamba_headdim": 8, "n_mamba_heads": 8, "mamba_ngroups": 2,
               "attention_hidden_size": 64, "attention_head_dim": 16},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 2},
    "esm": {"vocab_size": 33, "pad_token_id": 1},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "autoformer": {"prediction_length": 8},
    "informer": {"prediction_length": 8},
    "time_series_transformer": {"prediction_length": 8},
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
        raise NotBuilt(f"{count / 1e6:.0f} million parameters at the small size")
    torch.manual_seed(3)
    return cls(copy.deepcopy(config)).float().train()


def batches(model: nn.Module, config: Any) -> list[dict[str, Any]]:
    """Draw what a model may take, from the names of its forward method: the least first, then with more."""
    takes = inspect.signature(type(model).forward).parameters
    main = getattr(model, "main_input_name", "input_ids")
    main = main if isinstance(main, str) else main[0]
    needed = {
        name for name, one in takes.items()
        if one.default is inspect.Parameter.empty and one.kind is one.POSITIONAL_OR_KEYWORD and name != "self"
    }  # fmt: skip
    decoder = {"decoder_input_ids"} if getattr(config, "is_encoder_decoder", False) else set()
    first = {"input_ids"} if "input_ids" in takes else {main}
    choices = [first | decoder | needed, first | decoder | needed | {main, "pixel_values", "attention_mask", "bbox", "grid_thw"}]
    choices += [needed | {main} | decoder, set(DRAWN)]
    found = []
    for names in choices:
        torch.manual_seed(5)
        found.append({name: DRAWN[name](config) for name in DRAWN if name in names and name in takes})
    for given in list(found):  # sound comes with a channel or without one, spectra with time second or last
        for name, turned in (("input_features", lambda x: x.mT.contiguous()), ("input_values", lambda x: x[:, None])):
            if name in given:
                found.append({**given, name: turned(given[name])})
    return [given for index, given in enumerate(found) if given and _shapes(given) not in [_shapes(one) for one in found[:index]]]


def _shapes(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value.shape for name, value in given.items()}


def _tokens(config: Any) -> Tensor:
    text = config.get_text_config()
    vocab = getattr(text, "vocab_size", None)
    return torch.randint(3, max(4, min(vocab if isinstance(vocab, int) else 99, 90)), (BATCH, LENGTH))


def _pixels(config: Any) -> Tensor:
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", None) or 32
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return torch.randn(BATCH, getattr(vision, "num_channels", 3) or 3, int(height), int(width))


def _patches(config: Any) -> Tensor:
    """Draw two pictures of 4 x 4 patches, one after another, as the encoders of Qwen and its kin take them."""
    vision = getattr(config, "vision_config", config)
    channels = getattr(vision, "in_channels", None) or getattr(vision, "num_channels", 3)
    return torch.randn(32, channels * getattr(vision, "temporal_patch_size", 1) * vision.patch_size**2)


def _video(config: Any) -> Tensor:
    size = getattr(config, "image_size", 32)
    return torch.randn(BATCH, getattr(config, "num_frames", None) or 4, 3, *([size] * 2 if isinstance(size, int) else size))


def _pixels_of(config: Any) -> Tensor:
    return _patches(config) if config.model_type in PATCHED else _video(config) if config.model_type in FILMED else _pixels(config)


#: Types whose pictures come as rows of patches, and those that take films.
PATCHED = {"siglip2", "siglip2_vision_model", "kimi_k25_vision", "lfm3_vl_vision", "muse_spark_vision", "video_llama_3_vision",
           "paddleocr_vl_vision", "inkling2_vision"}  # fmt: skip
FILMED = {"vivit", "timesformer", "videomae", "vjepa2", "videoprism", "xclip"}
#: How each input is drawn, by its name.
DRAWN: dict[str, Any] = {
    "input_ids": _tokens,
    "decoder_input_ids": _tokens,
    "attention_mask": lambda config: torch.ones(BATCH, LENGTH, dtype=torch.long),
    "bbox": lambda config: torch.randint(0, 60, (BATCH, LENGTH, 2)).sort(-1).values.repeat(1, 1, 2).sort(-1).values,
    "pixel_values": _pixels_of,
    "hidden_states": _patches,
    "grid_thw": lambda config: torch.tensor([[1, 4, 4], [1, 4, 4]]),
    "image_grid_thw": lambda config: torch.tensor([[1, 4, 4], [1, 4, 4]]),
    "merge_sizes": lambda config: torch.tensor([2, 2]),
    "input_values": lambda config: torch.randn(BATCH, *([1] if getattr(config, "audio_channels", 0) == 1 else []), 1600),
    "input_features": lambda config: torch.randn(
        BATCH, getattr(config, "num_mel_bins", 80), 2 * (getattr(config, "max_source_positions", None) or 64)
    ),
    "pixel_values_videos": _video,
    "past_values": lambda config: torch.randn(
        BATCH, getattr(config, "context_length", 32) or 32, getattr(config, "num_input_channels", 1) or 1
    ),
}  # fmt: skip


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


def runnable(model_type: str) -> tuple[Any, dict[str, Any]]:
    """Return a configuration and a batch with which a model of the type is built and runs.

    Raises:
        NotBuilt: nothing that was tried does.
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
    raise NotBuilt(why)


def _first_that_runs(model: nn.Module, config: Any) -> dict[str, Any]:
    first: Exception | None = None
    for given in batches(model, config):
        try:
            loss(model, given).backward()
            return given
        except Exception as error:
            first = first or error
    raise first or NotBuilt("takes nothing that is drawn here")
