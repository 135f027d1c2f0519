"""What a model of transformers may take, drawn from the names of its forward method; and a loss of all it returns."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

BATCH, LENGTH = 2, 7


class NotBuiltError(Exception):
    """A model that is not built small, or does not run as it is."""


def batches(model: nn.Module, config: Any) -> list[dict[str, Any]]:
    """Draw what a model may take, from the names of its forward method: the least first, then with more."""
    takes = inspect.signature(type(model).forward).parameters
    main = getattr(model, "main_input_name", "input_ids")
    main = main if isinstance(main, str) else main[0]
    needed = {
        name
        for name, one in takes.items()
        if one.default is inspect.Parameter.empty and one.kind is one.POSITIONAL_OR_KEYWORD and name != "self"
    }
    decoder = {"decoder_input_ids"} if getattr(config, "is_encoder_decoder", False) else set()
    first = {"input_ids"} if "input_ids" in takes else {main}
    choices = [
        first | decoder | needed,
        first | decoder | needed | {main, "pixel_values", "attention_mask", "bbox", "grid_thw"},
    ]
    choices += [needed | {main} | decoder, set(DRAWN)]
    found = []
    for names in choices:
        torch.manual_seed(5)
        found.append({name: DRAWN[name](config) for name in DRAWN if name in names and name in takes})
    for given in list(found):  # sound comes with a channel or without one, spectra with time second or last
        for name, turned in (("input_features", lambda x: x.mT.contiguous()), ("input_values", lambda x: x[:, None])):
            if name in given:
                found.append({**given, name: turned(given[name])})
    return [
        given
        for index, given in enumerate(found)
        if given and _shapes(given) not in [_shapes(one) for one in found[:index]]
    ]


def _shapes(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value.shape for name, value in given.items()}


def _tokens(config: Any) -> Tensor:
    text = config.get_text_config()
    vocab = getattr(text, "vocab_size", None)
    return torch.randint(3, max(4, min(vocab if isinstance(vocab, int) else 99, 90)), (BATCH, LENGTH))


def _pixels(config: Any) -> Tensor:
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", None) or 64
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return torch.randn(BATCH, getattr(vision, "num_channels", 3) or 3, int(height), int(width))


def _patches(config: Any) -> Tensor:
    """Draw two pictures of 4 x 4 patches, one after another, as the encoders of Qwen and its kin take them."""
    vision = getattr(config, "vision_config", config)
    channels = getattr(vision, "in_channels", None) or getattr(vision, "num_channels", 3)
    return torch.randn(32, channels * getattr(vision, "temporal_patch_size", 1) * vision.patch_size**2)


def _video(config: Any) -> Tensor:
    size = getattr(config, "image_size", 32)
    return torch.randn(
        BATCH, getattr(config, "num_frames", None) or 4, 3, *([size] * 2 if isinstance(size, int) else size)
    )


def _pixels_of(config: Any) -> Tensor:
    if config.model_type.startswith("siglip2"):
        return _patches(config).unflatten(0, (BATCH, -1))
    if config.model_type in PATCHED:
        return _patches(config)
    return _video(config) if config.model_type in FILMED else _pixels(config)


def _sound(config: Any) -> Tensor:
    if config.model_type == "audio-spectrogram-transformer":
        return torch.randn(BATCH, config.max_length, config.num_mel_bins)
    return torch.randn(BATCH, *([1] if getattr(config, "audio_channels", 0) == 1 else []), 1600)


def _spectrum(config: Any) -> Tensor:
    bins = getattr(config, "feature_projection_input_dim", None) or getattr(config, "num_mel_bins", None) or 80
    return torch.randn(BATCH, bins, 2 * (getattr(config, "max_source_positions", None) or 64))


def _series(config: Any) -> Tensor:
    length, lags = getattr(config, "context_length", None) or 32, getattr(config, "lags_sequence", None)
    if lags:  # those of probabilistic forecasts look back further, at one number a time
        return torch.randn(BATCH, length + max(lags))
    return torch.randn(BATCH, length, getattr(config, "num_input_channels", 1) or 1)


#: Types whose pictures come as rows of patches, and those that take films.
PATCHED = {
    "kimi_k25_vision",
    "lfm3_vl_vision",
    "muse_spark_vision",
    "video_llama_3_vision",
    "paddleocr_vl_vision",
    "inkling2_vision",
}
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
    "pixel_attention_mask": lambda config: torch.ones(BATCH, 16, dtype=torch.long),
    "spatial_shapes": lambda config: torch.tensor([[4, 4], [4, 4]]),
    "input_values": _sound,
    "input_features": _spectrum,
    "pixel_values_videos": _video,
    "past_values": _series,
    "past_time_features": lambda config: torch.randn(*_series(config).shape, 1),
    "past_observed_mask": lambda config: torch.ones(_series(config).shape),
}


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
        raise NotBuiltError("no output with a gradient")
    return total


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        return [tensor for value in output.values() for tensor in _tensors(value)]
    if isinstance(output, list | tuple):
        return [tensor for value in output for tensor in _tensors(value)]
    return []
