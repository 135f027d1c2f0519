"""Norms of packages of vision."""

import importlib
from dataclasses import replace

import torch
from torch import nn

from tests.norms_table.entry import Entry
from tests.norms_table.formula import Formula
from tests.norms_table.kinds import (
    BATCH_2D,
    CHANNELS,
    CHANNELS_RMS,
    GROUPS,
    INSTANCE_2D,
    LAYER,
    ONE_GROUP,
    RMS,
    RMS_OF_ONE_PLUS,
    length_one,
    unit,
)

TOKENS, IMAGE, LAST = (3, 5, 12), (2, 12, 5, 7), (2, 5, 7, 12)
IDENTITY = {"apply_act": False}


def _timm(name: str, formula: Formula | None, shape: tuple[int, ...] = IMAGE, **more: object) -> Entry:
    return Entry(path=f"timm.layers.{name}", args=(12,), shape=shape, formula=formula, **more)


def _scaled_conv(*args: object, **keywords: object) -> nn.Module:
    layers = importlib.import_module("timm.layers")
    return layers.ScaledStdConv2d(*args, **keywords)


TIMM = (
    _timm("GroupNorm", GROUPS, keywords={"num_groups": 3}),
    _timm("GroupNorm1", ONE_GROUP),
    _timm("GroupNorm1", ONE_GROUP, (2, 12, 12, 12), note="equal sizes"),
    _timm("LayerNorm", LAYER, TOKENS),
    _timm("LayerNormFp32", LAYER, TOKENS),
    _timm("LayerNorm2d", CHANNELS),
    _timm("LayerNorm2dFp32", CHANNELS),
    _timm("norm.LayerNormExp2d", CHANNELS),
    _timm("RmsNorm", RMS, TOKENS),
    _timm("RmsNormFp32", RMS, TOKENS),
    _timm("RmsNorm2d", CHANNELS_RMS),
    _timm("RmsNorm2dFp32", CHANNELS_RMS),
    _timm("SimpleNorm", replace(RMS, spread=True, unbiased=True), TOKENS, plain=False, note="divides by a deviation"),
    _timm(
        "SimpleNorm2d", replace(CHANNELS_RMS, spread=True, unbiased=True), plain=False, note="divides by a deviation"
    ),
    _timm("BatchNormAct2d", BATCH_2D, keywords=IDENTITY, note="without activation"),
    _timm("BatchNormAct2d", replace(BATCH_2D, after=torch.relu), plain=False, note="with ReLU"),
    _timm("GroupNormAct", GROUPS, keywords={"num_groups": 3, **IDENTITY}, note="without activation"),
    _timm("GroupNorm1Act", ONE_GROUP, keywords=IDENTITY, note="without activation"),
    _timm("LayerNormAct", LAYER, TOKENS, keywords=IDENTITY, note="without activation"),
    _timm("LayerNormAct2d", CHANNELS, keywords=IDENTITY, note="without activation"),
    _timm("LayerNormAct2d", replace(CHANNELS, after=torch.relu), plain=False, note="with ReLU"),
    _timm("RmsNormAct", RMS, TOKENS, keywords=IDENTITY, note="without activation"),
    _timm("RmsNormAct2d", CHANNELS_RMS, keywords=IDENTITY, note="without activation"),
    _timm("FilterResponseNormAct2d", replace(INSTANCE_2D, centered=False), keywords=IDENTITY, note="no activation"),
    _timm("SplitBatchNorm2d", None, (4, 12, 5, 7), plain=False, note="two halves of a batch"),
    _timm("grn.GlobalResponseNorm", None, LAST, plain=False),
    _timm("EvoNorm2dS0", None, keywords={"groups": 3}, plain=False),
    _timm("EvoNorm2dB0", None, plain=False),
    Entry(path="timm.models.metaformer.GroupNorm1NoBias", args=(12,), shape=IMAGE, formula=ONE_GROUP),
    Entry(path="timm.models.metaformer.LayerNorm2dNoBias", args=(12,), shape=IMAGE, formula=CHANNELS),
    Entry(path="timm.models.metaformer.LayerNormNoBias", args=(12,), shape=TOKENS, formula=LAYER),
    _timm("FrozenBatchNormAct2d", None, keywords=IDENTITY, norm=False, note="constants"),
    Entry(
        path="timm.layers.ConvNormAct",
        args=(12, 12, 3),
        shape=IMAGE,
        norm=False,
        note="the convolution around a norm",
        inside={"bn": replace(BATCH_2D, after=torch.relu)},
    ),
    Entry(path="timm.layers.LayerScale", args=(12,), shape=TOKENS, norm=False),
    Entry(path="timm.layers.DropPath", args=(0.0,), shape=TOKENS, norm=False),
    Entry(
        path="timm.models.nfnet.NormFreeBlock",
        args=(12, 12),
        keywords={"conv_layer": _scaled_conv, "act_layer": nn.ReLU},
        shape=IMAGE,
        norm=False,
    ),
    Entry(path="timm.models.levit.ConvNorm", args=(12, 12), shape=IMAGE, norm=False),
)

TORCHVISION = (
    Entry(path="torchvision.models.convnext.LayerNorm2d", args=(12,), shape=IMAGE, formula=CHANNELS),
    Entry(path="torchvision.ops.FrozenBatchNorm2d", args=(12,), shape=IMAGE, norm=False, note="constants"),
    Entry(path="torchvision.ops.Conv2dNormActivation", args=(12, 12), shape=IMAGE, norm=False),
)

_BG = {"gain": "g", "bias": "b"}
VIT_PYTORCH = (
    Entry(
        path="vit_pytorch.simple_vit_with_qk_norm.RMSNorm",
        args=(4, 12),
        shape=(2, 4, 5, 12),
        formula=unit("gamma"),
        note="a gain for each head",
    ),
    Entry(path="vit_pytorch.vit_5.RMSNorm", args=(12,), shape=TOKENS, formula=unit("g")),
    Entry(
        path="vit_pytorch.na_vit.LayerNorm",
        args=(12,),
        shape=TOKENS,
        formula=Formula(eps=1e-5, gain="gamma", bias="beta"),
    ),
    Entry(
        path="vit_pytorch.na_vit.RMSNorm",
        args=(4, 12),
        shape=(2, 4, 5, 12),
        formula=unit("gamma"),
        note="a gain for each head",
    ),
    Entry(
        path="vit_pytorch.vivit_with_moss.ChanLayerNorm",
        args=(12,),
        shape=IMAGE,
        formula=replace(CHANNELS, gain="gamma"),
    ),
    Entry(path="vit_pytorch.cvt.LayerNorm", args=(12,), shape=IMAGE, formula=replace(CHANNELS, **_BG)),
    Entry(path="vit_pytorch.sep_vit.ChanLayerNorm", args=(12,), shape=IMAGE, formula=replace(CHANNELS, **_BG)),
    Entry(path="vit_pytorch.nest.LayerNorm", args=(12,), shape=IMAGE, formula=replace(CHANNELS, **_BG)),
    Entry(path="vit_pytorch.crossformer.LayerNorm", args=(12,), shape=IMAGE, formula=replace(CHANNELS, **_BG)),
    Entry(path="vit_pytorch.normalized_vit.L2Norm", shape=TOKENS, formula=length_one(12), note="of length one"),
    Entry(path="vit_pytorch.dino.L2Norm", shape=TOKENS, formula=length_one(5, axis=1, eps=1e-6), note="of length one"),
)

KORNIA = (
    Entry(path="kornia.models.common.LayerNorm2d", args=(12,), shape=IMAGE, formula=CHANNELS),
    Entry(path="kornia.models.efficient_vit.nn.norm.LayerNorm2d", args=(12,), shape=IMAGE, formula=CHANNELS),
    Entry(
        path="kornia.models.paligemma.modeling_paligemma.GemmaRMSNorm",
        args=(12,),
        shape=TOKENS,
        formula=RMS_OF_ONE_PLUS,
    ),
    Entry(path="kornia.models.qwen25.vision.Qwen25RMSNorm", args=(12,), shape=TOKENS, formula=RMS),
    Entry(
        path="kornia.feature.hynet.FilterResponseNorm2d",
        args=(12,),
        shape=IMAGE,
        formula=replace(INSTANCE_2D, centered=False),
    ),
    Entry(path="kornia.enhance.Normalize", args=(torch.tensor(0.3), torch.tensor(1.7)), shape=(2, 3, 5, 7), norm=False),
)

SEGMENT_ANYTHING = (
    Entry(path="segment_anything.modeling.common.LayerNorm2d", args=(12,), shape=IMAGE, formula=CHANNELS),
)
SEGMENTATION_MODELS = (
    Entry(
        path="segmentation_models_pytorch.decoders.upernet.decoder.LayerNorm2d",
        args=(12,),
        shape=IMAGE,
        formula=CHANNELS,
    ),
)
ULTRALYTICS = (Entry(path="ultralytics.nn.modules.transformer.LayerNorm2d", args=(12,), shape=IMAGE, formula=CHANNELS),)
OPEN_CLIP = (
    Entry(path="open_clip.transformer.LayerNormFp32", args=(12,), shape=TOKENS, formula=LAYER),
    Entry(path="open_clip.transformer.LayerNorm", args=(12,), shape=TOKENS, formula=LAYER),
    Entry(path="open_clip.transformer.LayerScale", args=(12,), shape=TOKENS, norm=False),
)
_NND = "dynamic_network_architectures.building_blocks"
NNU_NET = (
    Entry(path=f"{_NND}.patch_encode_decode.LayerNormNd", args=(12,), shape=IMAGE, formula=CHANNELS),
    Entry(
        path=f"{_NND}.patch_encode_decode.LayerNormNd", args=(12,), shape=(2, 12, 4, 5, 3), formula=CHANNELS, note="3-D"
    ),
    Entry(
        path=f"{_NND}.patch_encode_decode.LayerNormNd",
        args=(12,),
        shape=(2, 12, 12, 12),
        formula=CHANNELS,
        note="equal sizes",
    ),
    Entry(
        path=f"{_NND}.simple_conv_blocks.ConvDropoutNormReLU",
        args=(nn.Conv2d, 12, 12, 3, 1),
        shape=IMAGE,
        site="norm",
        keywords={
            "norm_op": nn.InstanceNorm2d,
            "norm_op_kwargs": {"affine": True},
            "nonlin": nn.ReLU,
            "nonlin_kwargs": {"inplace": True},
        },
        formula=INSTANCE_2D,
        note="InstanceNorm2d and then ReLU in place",
    ),
)
MONAI = (
    Entry(
        path="monai.networks.nets.navit._RMSNorm",
        args=(4, 12),
        shape=(2, 4, 5, 12),
        formula=unit("gamma"),
        note="a gain for each head",
    ),
    Entry(
        path="monai.networks.blocks.Convolution",
        args=(2, 12, 12),
        shape=IMAGE,
        site="adn.N",
        keywords={"norm": ("INSTANCE", {"affine": True}), "act": ("RELU", {"inplace": True})},
        formula=INSTANCE_2D,
        note="InstanceNorm2d and then ReLU in place",
    ),
    Entry(
        path="monai.apps.generation.maisi.networks.autoencoderkl_maisi.MaisiGroupNorm3D",
        args=(3, 12),
        shape=(2, 12, 4, 5, 3),
        formula=GROUPS,
    ),
)
MMENGINE = (Entry(path="mmengine.model.utils._BatchNormXd", args=(12,), shape=IMAGE, formula=BATCH_2D),)

PACKAGES = {
    "timm": TIMM,
    "torchvision": TORCHVISION,
    "vit-pytorch": VIT_PYTORCH,
    "kornia": KORNIA,
    "segment-anything": SEGMENT_ANYTHING,
    "segmentation-models-pytorch": SEGMENTATION_MODELS,
    "ultralytics": ULTRALYTICS,
    "open-clip-torch": OPEN_CLIP,
    "dynamic-network-architectures": NNU_NET,
    "monai": MONAI,
    "mmengine": MMENGINE,
}
