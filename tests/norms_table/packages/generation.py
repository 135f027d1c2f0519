"""Norms of packages that generate images, videos and sound."""

from dataclasses import replace

import torch

from tests.norms_table.entry import Entry
from tests.norms_table.formula import Formula
from tests.norms_table.kinds import (
    CHANNELS,
    CHANNELS_RMS,
    GROUPS,
    LAYER,
    RMS,
    RMS_OF_ONE_PLUS,
    length_one,
    unit,
)

TOKENS, IMAGE, VIDEO = (2, 5, 12), (2, 12, 5, 7), (2, 12, 3, 5, 7)
_MODELS, _NORMS = "diffusers.models", "diffusers.models.normalization"


def condition(*shape: int, **more: object) -> object:
    """Return a function that draws a condition."""
    return lambda: (torch.randn(shape),)


DIFFUSERS = (
    Entry(path=f"{_NORMS}.FP32LayerNorm", args=(12,), shape=TOKENS, formula=LAYER),
    Entry(path=f"{_NORMS}.RMSNorm", args=(12, 1e-6), shape=TOKENS, formula=RMS),
    Entry(
        path=f"{_NORMS}.RMSNorm",
        args=(12, 1e-6),
        keywords={"bias": True},
        shape=TOKENS,
        formula=replace(RMS, bias="bias"),
        note="with bias",
    ),
    Entry(path=f"{_NORMS}.RMSNorm", args=(12, 1e-6, False), shape=TOKENS, formula=RMS, note="without gain"),
    Entry(path=f"{_NORMS}.MochiRMSNorm", args=(12, 1e-6), shape=TOKENS, formula=RMS),
    Entry(path=f"{_NORMS}.LpNorm", shape=TOKENS, formula=length_one(12), note="of length one"),
    Entry(path=f"{_NORMS}.GlobalResponseNorm", args=(12,), shape=(2, 5, 7, 12), plain=False),
    Entry(
        path=f"{_NORMS}.AdaLayerNorm",
        args=(12,),
        keywords={"chunk_dim": 1, "output_dim": 24},
        shape=TOKENS,
        site="norm",
        further=lambda: {"temb": torch.randn(2, 12)},
        formula=LAYER,
        plain=False,
        note="the norm in it",
    ),
    Entry(
        path=f"{_NORMS}.AdaLayerNormContinuous",
        args=(12, 6),
        shape=TOKENS,
        site="norm",
        further=condition(2, 6),
        formula=LAYER,
        plain=False,
        note="the norm in it",
    ),
    Entry(
        path=f"{_NORMS}.AdaLayerNormZero",
        args=(12,),
        shape=TOKENS,
        site="norm",
        formula=LAYER,
        plain=False,
        further=lambda: {"emb": torch.randn(2, 12)},
        prepare=lambda m: setattr(m, "emb", None),
        note="the norm in it",
    ),
    Entry(
        path=f"{_NORMS}.AdaGroupNorm",
        args=(6, 12, 3),
        shape=IMAGE,
        further=condition(2, 6),
        plain=False,
        formula=Formula(
            groups="num_groups",
            at=1,
            bias=lambda m, emb: m.linear(emb)[:, 12:, None, None],
            gain=lambda m, emb: m.linear(emb)[:, :12, None, None],
            offset=1.0,
        ),
    ),
    Entry(
        path=f"{_MODELS}.attention_processor.SpatialNorm",
        args=(32, 6),
        shape=(2, 32, 5, 7),
        site="norm_layer",
        further=condition(2, 6, 5, 7),
        formula=GROUPS,
        plain=False,
        note="the norm in it",
    ),
    Entry(
        path=f"{_MODELS}.transformers.transformer_krea2.Krea2RMSNorm", args=(12,), shape=TOKENS, formula=RMS_OF_ONE_PLUS
    ),
    Entry(
        path=f"{_MODELS}.transformers.t5_film_transformer.T5LayerNorm",
        args=(12,),
        shape=TOKENS,
        formula=replace(RMS, eps="variance_epsilon"),
    ),
    Entry(
        path=f"{_MODELS}.transformers.transformer_mochi.MochiModulatedRMSNorm",
        args=(1e-6,),
        shape=TOKENS,
        site="norm",
        formula=RMS,
        further=condition(2, 5, 12),
        plain=False,
        note="the norm in it",
    ),
    Entry(
        path=f"{_MODELS}.transformers.transformer_qwenimage21.QwenImage21ZeroCenterRMSNorm",
        args=(12,),
        shape=TOKENS,
        formula=RMS_OF_ONE_PLUS,
    ),
    Entry(
        path=f"{_MODELS}.transformers.transformer_stable_audio3.StableAudio3RMSNorm",
        args=(12,),
        shape=TOKENS,
        formula=replace(RMS, gain="gamma"),
    ),
    Entry(
        path=f"{_MODELS}.transformers.transformer_cosmos3.Cosmos3NemotronRMSNorm",
        args=(12, 1e-5),
        shape=TOKENS,
        formula=RMS,
    ),
    Entry(
        path=f"{_MODELS}.transformers.sana_transformer.SanaModulatedNorm",
        args=(12,),
        shape=TOKENS,
        site="norm",
        formula=LAYER,
        plain=False,
        further=lambda: (torch.randn(2, 12), torch.randn(2, 12)),
        note="the norm in it",
    ),
    Entry(
        path=f"{_MODELS}.autoencoders.autoencoder_kl_wan.WanRMS_norm",
        args=(12,),
        shape=IMAGE,
        formula=unit("gamma", axis=1),
    ),
    Entry(
        path=f"{_MODELS}.autoencoders.autoencoder_kl_wan.WanRMS_norm",
        args=(12,),
        keywords={"images": False, "bias": True},
        shape=VIDEO,
        formula=unit("gamma", axis=1, bias="bias"),
        note="video, with bias",
    ),
    Entry(
        path=f"{_MODELS}.autoencoders.autoencoder_kl_qwenimage.QwenImageRMS_norm",
        args=(12,),
        shape=IMAGE,
        formula=unit("gamma", axis=1),
    ),
    Entry(
        path=f"{_MODELS}.autoencoders.autoencoder_kl_hunyuanvideo15.HunyuanVideo15RMS_norm",
        args=(12,),
        shape=IMAGE,
        formula=unit("gamma", axis=1),
    ),
    Entry(
        path=f"{_MODELS}.autoencoders.autoencoder_kl_hunyuanimage_refiner.HunyuanImageRefinerRMS_norm",
        args=(12,),
        shape=IMAGE,
        formula=unit("gamma", axis=1),
    ),
    Entry(path=f"{_MODELS}.autoencoders.autoencoder_kl_ltx2.PerChannelRMSNorm", shape=VIDEO, formula=CHANNELS_RMS),
    Entry(
        path=f"{_MODELS}.autoencoders.autoencoder_kl_mochi.MochiChunkedGroupNorm3D",
        args=(12, 3),
        shape=VIDEO,
        site="norm_layer",
        formula=GROUPS,
        note="the norm in it",
    ),
    Entry(
        path=f"{_MODELS}.autoencoders.autoencoder_vidtok.VidTokLayerNorm",
        args=(12,),
        shape=VIDEO,
        site="norm",
        formula=LAYER,
        note="the norm in it",
    ),
    Entry(
        path="diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_common.WuerstchenLayerNorm",
        args=(12,),
        shape=IMAGE,
        formula=CHANNELS,
    ),
)

_DENOISING = "denoising_diffusion_pytorch"
DENOISING = (
    Entry(path=f"{_DENOISING}.denoising_diffusion_pytorch.RMSNorm", args=(12,), shape=IMAGE, formula=unit("g", axis=1)),
    Entry(
        path=f"{_DENOISING}.denoising_diffusion_pytorch_1d.RMSNorm",
        args=(12,),
        shape=(2, 12, 7),
        formula=unit("g", axis=1),
    ),
    Entry(path=f"{_DENOISING}.simple_diffusion.RMSNorm", args=(12,), shape=(3, 5, 12), formula=unit("g")),
    Entry(path=f"{_DENOISING}.karras_unet.PixelNorm", args=(1,), shape=IMAGE, formula=unit(None, axis=1, eps=1e-4)),
)
COQUI = (
    Entry(
        path="TTS.tts.layers.generic.normalization.LayerNorm",
        args=(12,),
        shape=(2, 12, 7),
        formula=replace(CHANNELS, gain="gamma", bias="beta"),
    ),
    Entry(
        path="TTS.tts.layers.generic.normalization.LayerNorm2",
        args=(12,),
        shape=(2, 12, 7),
        formula=replace(CHANNELS, gain="gamma", bias="beta"),
    ),
    Entry(
        path="TTS.tts.layers.generic.normalization.TemporalBatchNorm1d",
        args=(12,),
        shape=(2, 7, 12),
        formula=Formula(axes=(0, 1)),
    ),
    Entry(
        path="TTS.tts.layers.generic.normalization.ActNorm", args=(12,), shape=(2, 12, 7), norm=False, note="constants"
    ),
    Entry(path="TTS.tts.layers.tortoise.arch_utils.GroupNorm32", args=(3, 12), shape=(2, 12, 7), formula=GROUPS),
    Entry(
        path="TTS.tts.layers.tortoise.xtransformers.ScaleNorm",
        args=(12,),
        shape=TOKENS,
        formula=unit("g", eps=12**0.5 * 1e-5),
    ),
    Entry(
        path="TTS.tts.layers.tortoise.xtransformers.RMSNorm",
        args=(12,),
        shape=TOKENS,
        formula=unit("g", eps=12**0.5 * 1e-8),
    ),
    Entry(path="TTS.tts.layers.xtts.perceiver_encoder.RMSNorm", args=(12,), shape=TOKENS, formula=unit("gamma")),
)
DEMUCS = (
    Entry(path="demucs.transformer.MyGroupNorm", args=(1, 12), shape=(2, 7, 12), formula=Formula(axes=(1, 2))),
    Entry(path="demucs.demucs.LayerScale", args=(12,), shape=(2, 12, 7), norm=False),
)

PACKAGES = {"diffusers": DIFFUSERS, "denoising-diffusion-pytorch": DENOISING, "coqui-tts": COQUI, "demucs": DEMUCS}
