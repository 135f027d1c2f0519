"""Norms of packages of graphs, symmetries, time series, tables and spikes."""

import torch
from torch import Tensor, nn

from tests.norms_table.entry import Entry
from tests.norms_table.formula import Formula
from tests.norms_table.kinds import BATCH_1D, BATCH_2D, BATCH_3D, LAYER, ROWS

NODES, SERIES = (9, 12), (3, 7, 5)


def _graphs() -> tuple[Tensor]:
    """Say which of three graphs each of nine nodes belongs to."""
    return (torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2]),)


_G = "torch_geometric.nn.norm"
ALL_NODES = Formula(axes=(0, 1), place="beside")
TORCH_GEOMETRIC = (
    Entry(path=f"{_G}.LayerNorm", args=(12,), shape=NODES, formula=ALL_NODES, note="one graph"),
    Entry(path=f"{_G}.LayerNorm", args=(12,), shape=NODES, further=_graphs, plain=False, note="three graphs"),
    Entry(
        path=f"{_G}.LayerNorm", args=(12,), keywords={"mode": "node"}, shape=NODES, formula=LAYER, note="node by node"
    ),
    Entry(
        path=f"{_G}.InstanceNorm", args=(12,), keywords={"affine": True}, shape=NODES, formula=ROWS, note="one graph"
    ),
    Entry(
        path=f"{_G}.InstanceNorm",
        args=(12,),
        keywords={"affine": True},
        shape=NODES,
        further=_graphs,
        plain=False,
        note="three graphs",
    ),
    Entry(path=f"{_G}.BatchNorm", args=(12,), shape=NODES, site="module", formula=ROWS, note="the norm in it"),
    Entry(path=f"{_G}.GraphNorm", args=(12,), shape=NODES, plain=False, note="one graph, part of the mean"),
    Entry(path=f"{_G}.GraphNorm", args=(12,), shape=NODES, further=_graphs, plain=False, note="three graphs"),
    Entry(path=f"{_G}.PairNorm", shape=NODES, plain=False, note="mean of a column, size of all"),
    Entry(
        path=f"{_G}.DiffGroupNorm",
        args=(12, 3),
        shape=NODES,
        site="norm",
        formula=ROWS,
        plain=False,
        note="the norm in it",
    ),
    Entry(path=f"{_G}.MeanSubtractionNorm", shape=NODES, plain=False, note="mean only"),
    Entry(path=f"{_G}.GraphSizeNorm", shape=NODES, norm=False, note="divides by the root of a count"),
    Entry(
        path=f"{_G}.MessageNorm",
        shape=NODES,
        further=lambda: (torch.randn(9, 12),),
        plain=False,
        note="of its second argument",
    ),
)

E3NN = (
    Entry(path="e3nn.nn.BatchNorm", args=("12x0e",), shape=NODES, formula=ROWS, note="scalars"),
    Entry(path="e3nn.nn.BatchNorm", args=("4x0e+3x1o",), shape=(9, 13), plain=False, note="scalars and vectors"),
    Entry(path="e3nn.nn.NormActivation", args=("4x0e+3x1o", torch.tanh), shape=(9, 13), norm=False),
    Entry(path="e3nn.o3.Norm", args=("4x0e+3x1o",), shape=(9, 13), norm=False, note="lengths of vectors"),
)
EQUIFORMER = (
    Entry(
        path="equiformer_pytorch.equiformer_pytorch.LayerNorm",
        args=(12,),
        shape=(2, 5, 12),
        formula=Formula(eps=1e-5, gain="gamma", bias="beta"),
    ),
)


def _to_norm(module: nn.Module, x: Tensor, further: object) -> Tensor:
    return module(x, "norm")


#: Mean and deviation over time are constants to autograd.
REVERSIBLE = Formula(axes=(1,), gain="affine_weight", bias="affine_bias", detached=True)
_REV = {"args": (5,), "shape": SERIES, "call": _to_norm, "plain": False, "note": "its statistics are detached"}
NEURALFORECAST = (
    Entry(path="neuralforecast.common._modules.RevIN", keywords={"affine": True}, formula=REVERSIBLE, **_REV),
    Entry(
        path="neuralforecast.common._modules.RevINMultivariate", keywords={"affine": True}, formula=REVERSIBLE, **_REV
    ),
    Entry(
        path="neuralforecast.models.tsmixerx.ReversibleInstanceNorm1d",
        args=(5,),
        shape=(3, 2, 7, 5),
        plain=False,
        formula=Formula(axes=(2,), detached=True),
        note="its statistics are detached",
    ),
    Entry(
        path="neuralforecast.models.autoformer.LayerNorm",
        args=(12,),
        shape=(3, 7, 12),
        site="layernorm",
        formula=LAYER,
        plain=False,
        note="the norm in it",
    ),
    Entry(
        path="neuralforecast.models.tft.MaybeLayerNorm",
        args=(12, 12, 1e-5),
        shape=(3, 7, 12),
        site="ln",
        formula=LAYER,
        note="the norm in it",
    ),
)
PYTORCH_FORECASTING = (
    Entry(path="pytorch_forecasting.layers.RevIN", formula=REVERSIBLE, **_REV),
    Entry(
        path="pytorch_forecasting.models.temporal_fusion_transformer.sub_modules.AddNorm",
        args=(12,),
        shape=(3, 7, 12),
        site="norm",
        further=lambda: (torch.randn(3, 7, 12),),
        formula=LAYER,
        plain=False,
        note="the norm in it",
    ),
)
PYTORCH_TABULAR = (
    Entry(
        path="pytorch_tabular.models.common.layers.batch_norm.BatchNorm1d",
        args=(12,),
        shape=NODES,
        site="bn",
        formula=ROWS,
        note="the norm in it",
    ),
)
GLUONTS = (
    Entry(
        path="gluonts.torch.model.mqf2._cpflows.ActNormNoLogdet",
        args=(12,),
        shape=NODES,
        plain=False,
        note="set by its first batch",
    ),
)

_SPIKING = "spikingjelly.activation_based.layer"
SPIKINGJELLY = (
    Entry(path=f"{_SPIKING}.BatchNorm1d", args=(12,), shape=(3, 12, 7), formula=BATCH_1D),
    Entry(path=f"{_SPIKING}.BatchNorm2d", args=(12,), shape=(2, 12, 5, 7), formula=BATCH_2D),
    Entry(path=f"{_SPIKING}.BatchNorm3d", args=(12,), shape=(2, 12, 3, 5, 7), formula=BATCH_3D),
    Entry(
        path=f"{_SPIKING}.BatchNorm2d",
        args=(12,),
        keywords={"step_mode": "m"},
        shape=(4, 2, 12, 5, 7),
        formula=Formula(axes=(0, 1, 3, 4), at=2),
        note="steps of time first",
    ),
    Entry(path=f"{_SPIKING}.GroupNorm", args=(3, 12), shape=(2, 12, 5, 7), formula=Formula(groups=3, at=1)),
    Entry(
        path=f"{_SPIKING}.ThresholdDependentBatchNorm2d",
        args=(1.0, 1.0, 12),
        shape=(4, 2, 12, 5, 7),
        formula=Formula(axes=(0, 1, 3, 4), at=2),
    ),
    Entry(
        path=f"{_SPIKING}.NeuNorm",
        args=(12, 5, 7),
        shape=(2, 12, 5, 7),
        plain=False,
        note="a running sum of spikes",
        steps=1,
    ),
)

PACKAGES = {
    "torch-geometric": TORCH_GEOMETRIC,
    "e3nn": E3NN,
    "equiformer-pytorch": EQUIFORMER,
    "neuralforecast": NEURALFORECAST,
    "pytorch-forecasting": PYTORCH_FORECASTING,
    "pytorch-tabular": PYTORCH_TABULAR,
    "gluonts": GLUONTS,
    "spikingjelly": SPIKINGJELLY,
}
