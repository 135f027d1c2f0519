"""What the benchmark trains: the zoo's Transformer, extremes, and each Hugging Face architecture, small but no toy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.lab.models.transformer import Transformer
from gradlens.outputs import first_tensor


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        build: makes the model; called once for each of the runs that are compared.
        batch: makes a batch of a seed.
        limit: the ratio that is aimed at.
        every: cadence of the lens.
        compiled: whether the model is compiled.
        memory: whether peak memory is compared too, in processes of its own.
        peers: whether other tools are measured too.
    """

    build: Callable[[], nn.Module]
    batch: Callable[[int], Any]
    limit: float
    every: int = 1
    compiled: bool = False
    memory: bool = False
    peers: bool = False


def loss_of(output: Any) -> Tensor:
    """The output's own loss, or the mean product with a fixed direction."""
    own = getattr(output, "loss", None)
    if own is not None:
        return own
    y = first_tensor(output)
    assert y is not None
    return (y * torch.sin(torch.arange(y.numel(), device=y.device)).view_as(y)).mean()


def _zoo(variant: str, width: int, blocks: int, batch: int, length: int, limit: float, **more: Any) -> Case:
    return Case(
        lambda: Transformer(variant, vocab=256, width=width, blocks=blocks, heads=4, max_length=length),
        lambda seed: torch.randint(0, 256, (batch, length), generator=torch.Generator().manual_seed(seed)),
        limit,
        **more,
    )


_TEXT = {
    "vocab_size": 2000,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_TEXT, "num_key_value_heads": 2, "head_dim": 64}
_PAIR = {
    "vocab_size": 2000,
    "d_model": 256,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 1024,
    "decoder_ffn_dim": 1024,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
_IMAGES = {"image_size": 128, "num_channels": 3}
_ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT": ("bert", _TEXT),
    "BART": ("bart", _PAIR),
    "MBart": ("mbart", _PAIR),
    "T5": ("t5", {"vocab_size": 2000, "d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 3, "num_heads": 4}),
    "GPT-2": ("gpt2", {"vocab_size": 2000, "n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 128}),
    "Llama": ("llama", _GROUPED),
    "Qwen3": ("qwen3", _GROUPED),
    "Gemma 2": ("gemma2", _GROUPED),
    "Mistral": ("mistral", _GROUPED),
    "Mixtral": ("mixtral", {**_GROUPED, "intermediate_size": 512, "num_local_experts": 4}),
    "ViT": ("vit", {**_IMAGES, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
                    "intermediate_size": 1024, "patch_size": 16}),
    "Swin": ("swin", {**_IMAGES, "embed_dim": 96, "depths": [2, 2, 2], "num_heads": [3, 6, 12], "window_size": 4,
                      "patch_size": 4}),
    "ConvNeXt": ("convnext", {**_IMAGES, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}),
    "ResNet": ("resnet", {"num_channels": 3, "embedding_size": 64, "hidden_sizes": [64, 128, 256, 512],
                          "depths": [2, 2, 2, 2], "layer_type": "basic"}),
    "wav2vec 2.0": ("wav2vec2", {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
                                 "intermediate_size": 1024, "conv_dim": [128] * 7}),
    "Whisper": ("whisper", {**_PAIR, "num_mel_bins": 80, "max_source_positions": 250, "max_target_positions": 128}),
}  # fmt: skip


def _hugging_face(model_type: str, sizes: dict[str, Any]) -> Case:
    from gradlens.lab.models.huggingface import Source
    from gradlens.lab.models.huggingface_batch import make_batch

    source = Source.find(model_type)
    config = source.configure(sizes)
    cls = source.model_class(config)
    return Case(
        lambda: source.build(cls, config),
        lambda seed: make_batch(cls, config, seed=seed, batch_size=8, length=128),
        limit=1.05,
    )


class ManyNorms(nn.Module):
    """A chain of norms of four entries each: all that a step takes is what a call takes."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.norms = nn.Sequential(*(nn.LayerNorm(4) for _ in range(number)))

    def forward(self, x: Tensor) -> Tensor:
        return self.norms(x)


class NormedLSTM(nn.Module):
    """A recurrent cell whose state is normalized after each of the time steps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell, self.norm = nn.LSTMCell(width, width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[1:])
        states = []
        for now in x:
            h, c = self.cell(now, (h, c))
            h = self.norm(h)
            states.append(h)
        return torch.stack(states)


def _numbers(*shape: int) -> Callable[[int], Tensor]:
    return lambda seed: torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cases() -> dict[str, Callable[[], Case]]:
    """Return the rows of the table, each made when it is its turn."""
    zoo = {
        "width 512, 6 blocks, 8 x 128": lambda: _zoo("pre-ln", 512, 6, 8, 128, 1.03, memory=True, peers=True),
        "width 256, 6 blocks, 8 x 128": lambda: _zoo("pre-ln", 256, 6, 8, 128, 1.04, memory=True, peers=True),
        "width 128, 4 blocks, 8 x 64": lambda: _zoo("pre-ln", 128, 4, 8, 64, 1.10, memory=True, peers=True),
        "width 128, 4 blocks, 8 x 64, every=10": lambda: _zoo("pre-ln", 128, 4, 8, 64, 1.01, every=10),
        "width 256, 6 blocks, 8 x 128, compiled": lambda: _zoo("pre-ln", 256, 6, 8, 128, 1.02, compiled=True),
        "1,500 norms of width 4": lambda: Case(lambda: ManyNorms(1500), _numbers(8, 4), limit=2.0),
        "LSTM with LayerNorm, 100 time steps": lambda: Case(lambda: NormedLSTM(64), _numbers(100, 32, 64), limit=1.6),
    }
    others = {
        name: (lambda kind=kind, sizes=sizes: _hugging_face(kind, sizes))
        for name, (kind, sizes) in _ARCHITECTURES.items()
    }
    return zoo | others
