"""A batch for a model of transformers, from its configuration alone: random tokens, pixels or sound."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.errors import ModelError

#: Pixels a side where the configuration leaves the size free (ResNet): that of ImageNet.
_IMAGE_SIZE = 224
#: Tokens of a transcript, which is to be shorter than its sound.
_TRANSCRIPT = 4
#: How the names of classes end whose labels are tokens, as many as they give logits for.
_PREDICT_TOKENS = ("LMHeadModel", "ForCausalLM", "ForMaskedLM", "ForConditionalGeneration")


def make_batch(cls: type[nn.Module], config: Any, *, seed: int, batch_size: int, length: int) -> dict[str, Tensor]:
    """Return what the model's ``forward`` takes, with labels where it then gives its own loss.

    Args:
        cls: the model's class, which says what it reads.
        config: its configuration.
        seed: two calls with the same seed return the same.
        batch_size: sequences, images or recordings.
        length: tokens in a sequence, or frames of sound that reach the first block.

    Raises:
        ModelError: the class reads something else.
    """
    name = str(getattr(cls, "main_input_name", "input_ids"))
    accepted = inspect.signature(cls.forward).parameters
    try:
        batch = _inputs(_Draw(config, seed, batch_size, length), name, cls.__name__, config)
        return {key: draw() for key, draw in batch.items() if key in accepted}
    # Each family's configuration lacks something else that another has.
    except Exception as error:
        raise ModelError(
            f"A batch can be made for models of text, images, raw sound and Whisper's spectra; {cls.__name__} reads "
            f"{name}, and its configuration does not tell of what size. Name a function that returns a batch: "
            "--batch pkg.mod:fn."
        ) from error


def _inputs(draw: "_Draw", main: str, cls: str, config: Any) -> dict[str, Callable[[], Tensor]]:
    """Return what may go into a batch, by the name of its keyword, to be drawn where the class takes it.

    Raises:
        KeyError: nothing is known of the main input.
    """
    known: dict[str, Callable[[], Tensor]] = {
        "input_ids": draw.tokens,
        "pixel_values": draw.pixels,
        "input_values": draw.sound,
        "input_features": draw.spectrum,
    }
    batch = {main: known[main]}
    if main == "input_ids":
        batch["attention_mask"] = draw.mask
    if getattr(config, "is_encoder_decoder", False):
        batch["decoder_input_ids"] = draw.tokens
    if cls.endswith(_PREDICT_TOKENS):
        batch["labels"] = draw.tokens
    elif cls.endswith("ForCTC") and config.vocab_size:
        batch["labels"] = draw.transcript
    elif cls.endswith("ForImageClassification") and config.num_labels > 1:
        batch["labels"] = draw.classes
    return batch


class _Draw:
    """Random inputs in the sizes of a configuration."""

    def __init__(self, config: Any, seed: int, batch_size: int, length: int) -> None:
        self._config, self._batch_size, self._length = config, batch_size, length
        self._generator = torch.Generator().manual_seed(seed)

    def _below(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self._generator)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)

    def classes(self) -> Tensor:
        """Return one class [B] for each image."""
        return self._below(int(self._config.num_labels), self._batch_size)

    def transcript(self) -> Tensor:
        """Return tokens [B, T] that are fewer than the frames of their sound."""
        return self.tokens()[:, :_TRANSCRIPT]

    def mask(self) -> Tensor:
        """Return the mask [B, T] of tokens none of which is padding."""
        return torch.ones_like(self.tokens())

    def tokens(self) -> Tensor:
        """Return tokens [B, T], none of which is padding; T is at most the number of positions."""
        config = self._config.get_text_config()
        names = ("max_position_embeddings", "max_target_positions", "n_positions")
        limits = [limit for name in names if isinstance(limit := getattr(config, name, None), int) and limit > 0]
        vocab, padding = int(config.vocab_size), getattr(config, "pad_token_id", None)
        if not isinstance(padding, int) or not 0 <= padding < vocab or vocab < 2:
            return self._below(vocab, self._batch_size, min([self._length, *limits]))
        drawn = self._below(vocab - 1, self._batch_size, min([self._length, *limits]))
        return drawn + (drawn >= padding)

    def pixels(self) -> Tensor:
        """Return images [B, C, H, W] of normalized pixels."""
        size = getattr(self._config, "image_size", None) or _IMAGE_SIZE
        height, width = (size, size) if isinstance(size, int) else size
        return self._normal(self._batch_size, getattr(self._config, "num_channels", 3), int(height), int(width))

    def sound(self) -> Tensor:
        """Return raw samples [B, T], as many as the convolutions turn into ``length`` frames."""
        samples = self._length
        for kernel, stride in reversed(list(zip(self._config.conv_kernel, self._config.conv_stride, strict=True))):
            samples = (samples - 1) * stride + kernel
        return self._normal(self._batch_size, samples)

    def spectrum(self) -> Tensor:
        """Return mel spectra [B, mels, frames], of the one length that Whisper takes."""
        return self._normal(self._batch_size, self._config.num_mel_bins, 2 * self._config.max_source_positions)
