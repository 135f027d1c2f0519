"""Norms of packages of language models, and of torch."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from tests.norms_table.entry import Entry
from tests.norms_table.formula import Formula
from tests.norms_table.kinds import (
    BATCH_1D,
    BATCH_2D,
    BATCH_3D,
    GROUPS,
    INSTANCE_1D,
    INSTANCE_2D,
    LAYER,
    RMS,
    RMS_OF_ONE_PLUS,
    ROWS,
    length_one,
    unit,
)

TOKENS, IMAGE, HEADS = (3, 5, 12), (2, 12, 5, 7), (2, 4, 5, 12)

TORCH = (
    Entry(path="torch.nn.LayerNorm", args=(12,), shape=TOKENS, formula=LAYER),
    Entry(path="torch.nn.LayerNorm", args=((5, 12),), shape=TOKENS, formula=Formula(axes=(-2, -1)), note="of two axes"),
    Entry(
        path="torch.nn.LayerNorm",
        args=(12,),
        keywords={"elementwise_affine": False},
        shape=TOKENS,
        formula=LAYER,
        note="without gain",
    ),
    Entry(path="torch.nn.RMSNorm", args=(12,), shape=TOKENS, formula=RMS),
    Entry(path="torch.nn.GroupNorm", args=(3, 12), shape=IMAGE, formula=GROUPS),
    Entry(path="torch.nn.BatchNorm1d", args=(12,), shape=(5, 12), formula=ROWS),
    Entry(path="torch.nn.BatchNorm1d", args=(12,), shape=(3, 12, 7), formula=BATCH_1D, note="with time"),
    Entry(path="torch.nn.BatchNorm2d", args=(12,), shape=IMAGE, formula=BATCH_2D),
    Entry(path="torch.nn.BatchNorm3d", args=(12,), shape=(2, 12, 3, 5, 7), formula=BATCH_3D),
    Entry(path="torch.nn.InstanceNorm1d", args=(12,), keywords={"affine": True}, shape=(2, 12, 7), formula=INSTANCE_1D),
    Entry(path="torch.nn.InstanceNorm2d", args=(12,), keywords={"affine": True}, shape=IMAGE, formula=INSTANCE_2D),
    Entry(path="torch.nn.LocalResponseNorm", args=(3,), shape=IMAGE, plain=False),
    Entry(path="torch.nn.Dropout", args=(0.0,), shape=TOKENS, norm=False),
    Entry(path="torch.nn.Softmax", args=(-1,), shape=TOKENS, norm=False),
    Entry(path="torch.nn.PReLU", args=(12,), shape=IMAGE, norm=False),
)

_X = "x_transformers.x_transformers"


def _conditioned(*shape: int) -> object:
    return lambda: {"condition": torch.randn(shape)}


X_TRANSFORMERS = (
    Entry(
        path=f"{_X}.LayerNorm",
        args=(12,),
        shape=TOKENS,
        site="ln",
        formula=LAYER,
        note="the norm in it, without its gain",
    ),
    Entry(
        path=f"{_X}.AdaptiveLayerNorm",
        args=(12, 6),
        shape=TOKENS,
        site="ln",
        further=_conditioned(3, 6),
        formula=LAYER,
        plain=False,
        note="the norm in it",
    ),
    Entry(path=f"{_X}.ScaleNorm", args=(12,), shape=TOKENS, formula=unit("g")),
    Entry(path=f"{_X}.RMSNorm", args=(12,), shape=TOKENS, formula=unit("g")),
    Entry(
        path=f"{_X}.RMSNorm",
        args=(12, True),
        shape=TOKENS,
        formula=replace(unit("g"), offset=1.0),
        note="gain less one",
    ),
    Entry(path=f"{_X}.SimpleRMSNorm", args=(12,), shape=TOKENS, formula=unit()),
    Entry(
        path=f"{_X}.AdaptiveRMSNorm",
        args=(12, 6),
        shape=TOKENS,
        further=_conditioned(3, 6),
        plain=False,
        formula=replace(unit(lambda m, condition: m.to_gamma(condition)[:, None]), offset=1.0),
    ),
    Entry(
        path=f"{_X}.MultiheadRMSNorm",
        args=(12, 4),
        shape=HEADS,
        site="rmsnorm",
        formula=unit(),
        note="the norm in it, without its gain",
    ),
)

TORCHSCALE = (
    Entry(path="torchscale.component.rms_norm.RMSNorm", args=(12,), shape=TOKENS, formula=RMS),
    Entry(
        path="torchscale.component.rms_norm.RMSNorm",
        args=(12,),
        keywords={"elementwise_affine": False},
        shape=TOKENS,
        formula=RMS,
        note="without gain",
    ),
)
LITGPT = (
    Entry(path="litgpt.model.RMSNorm", args=(12,), shape=TOKENS, formula=RMS),
    Entry(
        path="litgpt.model.RMSNorm",
        args=(12,),
        keywords={"add_unit_offset": True},
        shape=TOKENS,
        formula=RMS_OF_ONE_PLUS,
        note="gain less one",
    ),
)
_OLMO = "olmo_core.nn.layer_norm"
OLMO = (
    Entry(path=f"{_OLMO}.LayerNorm", keywords={"size": 12}, shape=TOKENS, formula=LAYER),
    Entry(
        path=f"{_OLMO}.RMSNorm",
        keywords={"size": 12},
        shape=TOKENS,
        formula=replace(RMS, bias="bias"),
        note="with bias",
    ),
    Entry(path=f"{_OLMO}.RMSNorm", keywords={"size": 12, "bias": False}, shape=TOKENS, formula=RMS),
    Entry(path=f"{_OLMO}.QwenRMSNorm", keywords={"size": 12, "bias": False}, shape=TOKENS, formula=RMS),
    Entry(path=f"{_OLMO}.NemotronRMSNorm", keywords={"size": 12, "bias": False}, shape=TOKENS, formula=RMS),
    Entry(path=f"{_OLMO}.L2Norm", keywords={"size": 12}, shape=TOKENS, formula=length_one(12), note="of length one"),
)
MAMBAPY = (
    Entry(path="mambapy.mamba.RMSNorm", args=(12,), shape=TOKENS, formula=RMS),
    Entry(
        path="mambapy.mamba.RMSNorm",
        args=(12,),
        keywords={"use_mup": True},
        shape=TOKENS,
        formula=RMS,
        note="without gain",
    ),
    Entry(path="mambapy.vim.RMSNorm", args=(12,), shape=TOKENS, formula=RMS),
)


def _nothing(*_: object) -> nn.Module:
    return nn.Identity()


REFORMER = (
    Entry(
        path="reformer_pytorch.reformer_pytorch.ScaleNorm",
        args=(12,),
        shape=TOKENS,
        formula=length_one(12, lambda m: m.g, eps=1e-5),
    ),
    Entry(
        path="reformer_pytorch.reformer_pytorch.PreNorm",
        args=(nn.LayerNorm, 12, nn.Identity()),
        shape=TOKENS,
        norm=False,
        note="a norm and what follows it",
    ),
)
PERFORMER = (
    Entry(
        path="performer_pytorch.performer_pytorch.PreLayerNorm",
        args=(12, nn.Linear(12, 12)),
        shape=TOKENS,
        norm=False,
        note="a norm and what follows it",
    ),
)
CONFORMER = (
    Entry(
        path="conformer.conformer.PreNorm",
        args=(12, nn.Linear(12, 12)),
        shape=TOKENS,
        norm=False,
        note="a norm and what follows it",
    ),
)


def _of_features(module: nn.Module, x: Tensor, further: object) -> Tensor:
    return module({"sentence_embedding": x})["sentence_embedding"]


SENTENCE_TRANSFORMERS = (
    Entry(
        path="sentence_transformers.sentence_transformer.modules.LayerNorm",
        args=(12,),
        shape=(5, 12),
        site="norm",
        formula=LAYER,
        call=_of_features,
        note="the norm in it",
    ),
    Entry(
        path="sentence_transformers.base.modules.normalize.Normalize",
        shape=(5, 12),
        call=_of_features,
        plain=False,
        note="of a dict",
    ),
)

PACKAGES = {
    "torch": TORCH,
    "x-transformers": X_TRANSFORMERS,
    "torchscale": TORCHSCALE,
    "litgpt": LITGPT,
    "ai2-olmo-core": OLMO,
    "mambapy": MAMBAPY,
    "reformer-pytorch": REFORMER,
    "performer-pytorch": PERFORMER,
    "conformer": CONFORMER,
    "sentence-transformers": SENTENCE_TRANSFORMERS,
}
