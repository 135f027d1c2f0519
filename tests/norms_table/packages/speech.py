"""Norms of packages of speech and sound."""

from dataclasses import replace

import torch

from tests.norms_table.entry import Entry
from tests.norms_table.formula import Formula
from tests.norms_table.kinds import BATCH_1D, CHANNELS, GROUPS, INSTANCE_1D, INSTANCE_2D, LAYER, RMS, unit

TOKENS, SOUND, IMAGE = (3, 5, 12), (2, 12, 7), (2, 12, 5, 7)
GREEK = {"gain": "gamma", "bias": "beta"}
TINY = torch.finfo(torch.float32).eps
#: One mean and sigma for all of a sample.
GLOBAL_1D = Formula(axes=(1, 2), at=1, eps=1e-8, **GREEK)
CHANNELS_OF_TINY_EPS = replace(CHANNELS, eps=1e-8, **GREEK)

_A = "asteroid.masknn.norms"
ASTEROID = (
    Entry(path=f"{_A}.GlobLN", args=(12,), shape=SOUND, formula=GLOBAL_1D),
    Entry(path=f"{_A}.ChanLN", args=(12,), shape=SOUND, formula=CHANNELS_OF_TINY_EPS),
    Entry(path=f"{_A}.ChanLN", args=(12,), shape=IMAGE, formula=CHANNELS_OF_TINY_EPS, note="of an image"),
    Entry(path=f"{_A}.CumLN", args=(12,), shape=SOUND, plain=False, note="cumulative over time"),
    Entry(path=f"{_A}.FeatsGlobLN", args=(12,), shape=IMAGE, formula=Formula(axes=(2, 3), at=1, eps=1e-8, **GREEK)),
    Entry(path=f"{_A}.BatchNorm", args=(12,), shape=SOUND, formula=BATCH_1D),
)

_S = "speechbrain"
SPEECHBRAIN = (
    Entry(
        path=f"{_S}.nnet.normalization.LayerNorm",
        args=(12,),
        shape=TOKENS,
        site="norm",
        formula=LAYER,
        note="the norm in it",
    ),
    Entry(
        path=f"{_S}.nnet.normalization.BatchNorm1d",
        keywords={"input_size": 12},
        shape=TOKENS,
        site="norm",
        formula=BATCH_1D,
        note="the norm in it",
    ),
    Entry(
        path=f"{_S}.nnet.normalization.GroupNorm",
        keywords={"input_size": 12, "num_groups": 3},
        shape=TOKENS,
        site="norm",
        formula=GROUPS,
        note="the norm in it",
    ),
    Entry(
        path=f"{_S}.nnet.normalization.InstanceNorm1d",
        keywords={"input_size": 12, "affine": True},
        shape=TOKENS,
        site="norm",
        formula=INSTANCE_1D,
        note="the norm in it",
    ),
    Entry(
        path=f"{_S}.lobes.models.conv_tasnet.ChannelwiseLayerNorm",
        args=(12,),
        shape=TOKENS,
        formula=replace(LAYER, eps=1e-8, **GREEK),
    ),
    Entry(
        path=f"{_S}.lobes.models.conv_tasnet.GlobalLayerNorm",
        args=(12,),
        shape=TOKENS,
        formula=Formula(axes=(1, 2), eps=1e-8, **GREEK),
    ),
    Entry(
        path=f"{_S}.lobes.models.dual_path.GlobalLayerNorm",
        args=(12, 3),
        shape=SOUND,
        formula=Formula(axes=(1, 2), at=1),
    ),
    Entry(
        path=f"{_S}.lobes.models.dual_path.GlobalLayerNorm",
        args=(12, 4),
        shape=IMAGE,
        formula=Formula(axes=(1, 2, 3), at=1),
        note="of an image",
    ),
    Entry(path=f"{_S}.lobes.models.dual_path.CumulativeLayerNorm", args=(12,), shape=SOUND, formula=CHANNELS),
    Entry(
        path=f"{_S}.lobes.models.dual_path.CumulativeLayerNorm",
        args=(12,),
        shape=(2, 12, 12),
        formula=CHANNELS,
        note="equal sizes",
    ),
)

_E = "espnet2.enh"
ESPNET = (
    Entry(path="espnet.nets.pytorch_backend.transformer.layer_norm.LayerNorm", args=(12,), shape=TOKENS, formula=LAYER),
    Entry(
        path="espnet.nets.pytorch_backend.transformer.layer_norm.LayerNorm",
        args=(12, 1),
        shape=SOUND,
        formula=CHANNELS,
        note="channels first",
    ),
    Entry(
        path="espnet.nets.pytorch_backend.transformer.layer_norm.LayerNorm",
        args=(12, 1),
        shape=(2, 12, 12),
        formula=CHANNELS,
        note="channels first, equal sizes",
    ),
    Entry(path="espnet2.asr.frontend.cnn.Dim1LayerNorm", args=(12,), shape=SOUND, formula=CHANNELS),
    Entry(path="espnet2.asr.frontend.cnn.TransposedLayerNorm", args=(12,), shape=SOUND, formula=CHANNELS),
    Entry(
        path="espnet2.asr.state_spaces.components.TransposedLN",
        args=(12,),
        shape=SOUND,
        plain=False,
        note="its shift is divided by sigma, too",
    ),
    Entry(path="espnet2.asr.state_spaces.components.TSNormalization", args=("mean", 2), shape=TOKENS, plain=False),
    Entry(
        path="espnet2.diar.layers.tcn_nomask.ChannelwiseLayerNorm",
        args=(12,),
        shape=SOUND,
        formula=replace(CHANNELS, eps=TINY, **GREEK),
    ),
    Entry(
        path="espnet2.diar.layers.tcn_nomask.GlobalLayerNorm",
        args=(12,),
        shape=SOUND,
        formula=replace(GLOBAL_1D, eps=TINY),
    ),
    Entry(
        path="espnet2.gan_svs.visinger2.visinger2_vocoder.LayerNorm",
        args=(12,),
        shape=SOUND,
        formula=replace(CHANNELS, **GREEK),
    ),
    Entry(
        path="espnet2.asr_transducer.normalization.BasicNorm",
        args=(12,),
        shape=TOKENS,
        formula=replace(RMS, eps=lambda m: m.eps.exp()),
    ),
    Entry(
        path="espnet2.asr_transducer.normalization.RMSNorm",
        args=(12,),
        shape=TOKENS,
        formula=replace(RMS, gain="scale", place="beside"),
    ),
    Entry(
        path="espnet2.asr_transducer.normalization.RMSNorm",
        args=(12, 1e-5, 0.5),
        shape=TOKENS,
        plain=False,
        note="sigma of half a vector",
    ),
    Entry(
        path="espnet2.asr_transducer.normalization.ScaleNorm",
        args=(12,),
        shape=TOKENS,
        formula=unit(lambda m: m.scale / 12**0.5, eps=1e-5),
    ),
    Entry(
        path=f"{_E}.separator.tfgridnet_separator.LayerNormalization4D",
        args=(12,),
        shape=IMAGE,
        formula=replace(CHANNELS, **GREEK),
    ),
    Entry(
        path=f"{_E}.separator.tfgridnet_separator.LayerNormalization4DCF",
        args=((12, 7),),
        shape=IMAGE,
        formula=Formula(axes=(1, 3), **GREEK),
    ),
    Entry(
        path=f"{_E}.layers.bsrnn.ChannelwiseLayerNorm",
        args=(12,),
        shape=IMAGE,
        formula=replace(CHANNELS, eps=TINY, **GREEK),
    ),
    Entry(
        path=f"{_E}.layers.bsrnn.ChannelFreqwiseLayerNorm",
        args=(12,),
        shape=IMAGE,
        formula=Formula(axes=(1, 3), eps=TINY, **GREEK),
    ),
    Entry(
        path=f"{_E}.layers.tcn.ChannelwiseLayerNorm",
        args=(12,),
        shape=SOUND,
        formula=replace(CHANNELS, eps=1e-8, **GREEK),
    ),
    Entry(path=f"{_E}.layers.tcn.GlobalLayerNorm", args=(12,), shape=SOUND, formula=GLOBAL_1D),
    Entry(
        path=f"{_E}.layers.tcn.GlobalLayerNorm",
        args=(12, "BTD"),
        shape=TOKENS,
        note="channels last",
        formula=Formula(axes=(1, 2), eps=1e-8, gain=lambda m: m.gamma.reshape(-1), bias=lambda m: m.beta.reshape(-1)),
    ),
    Entry(path=f"{_E}.layers.uses.LayerNormalization", args=(12, 1), shape=IMAGE, formula=replace(CHANNELS, **GREEK)),
    Entry(
        path=f"{_E}.layers.ncsnpp_utils.normalization.VarianceNorm2d",
        args=(12,),
        shape=IMAGE,
        plain=False,
        formula=Formula(
            axes=(2, 3), at=1, centered=False, spread=True, unbiased=True, eps=1e-5, gain="alpha", bias=None
        ),
        note="divides by a deviation",
    ),
    Entry(
        path=f"{_E}.layers.ncsnpp_utils.normalization.InstanceNorm2dPlus",
        args=(12,),
        shape=IMAGE,
        site="instance_norm",
        plain=False,
        formula=INSTANCE_2D,
        note="the norm in it",
    ),
    Entry(
        path=f"{_E}.layers.ncsnpp_utils.normalization.ConditionalInstanceNorm2d",
        args=(12, 4),
        shape=IMAGE,
        site="instance_norm",
        plain=False,
        further=lambda: (torch.tensor([1, 3]),),
        formula=INSTANCE_2D,
        note="the norm in it",
    ),
)

PACKAGES = {"asteroid": ASTEROID, "speechbrain": SPEECHBRAIN, "espnet": ESPNET}
