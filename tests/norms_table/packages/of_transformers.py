"""Norms of transformers: one of each kind that its families copy from each other."""

from dataclasses import replace

import torch
from torch import Tensor

from tests.norms_table.entry import Entry
from tests.norms_table.kinds import CHANNELS, GROUPS, LAYER, RMS, RMS_OF_ONE_PLUS

TOKENS, IMAGE = (3, 5, 12), (2, 12, 5, 7)
_MODELS = "transformers.models"
_DETR = f"{_MODELS}.detr.modeling_detr"


def gated(shape: tuple[int, ...]) -> object:
    """Return a function that draws a gate."""
    return lambda: (torch.randn(shape),)


def silu(gate: Tensor) -> Tensor:
    """Return x times its sigmoid."""
    return gate * torch.sigmoid(gate)


#: What is normalized is x times the gate.
GATE_FIRST = replace(RMS, eps="variance_epsilon", before=lambda module, x, gate: x * silu(gate))
GATE_LAST = replace(RMS, eps="variance_epsilon", gate=lambda module, gate: silu(gate))
TRANSFORMERS = (
    Entry(
        path=f"{_MODELS}.llama.modeling_llama.LlamaRMSNorm",
        args=(12,),
        shape=TOKENS,
        formula=replace(RMS, eps="variance_epsilon"),
    ),
    Entry(
        path=f"{_MODELS}.t5.modeling_t5.T5LayerNorm",
        args=(12,),
        shape=TOKENS,
        formula=replace(RMS, eps="variance_epsilon"),
    ),
    Entry(path=f"{_MODELS}.gemma.modeling_gemma.GemmaRMSNorm", args=(12,), shape=TOKENS, formula=RMS_OF_ONE_PLUS),
    Entry(
        path=f"{_MODELS}.cohere.modeling_cohere.CohereLayerNorm",
        args=(12,),
        shape=TOKENS,
        formula=replace(LAYER, eps="variance_epsilon"),
    ),
    Entry(
        path=f"{_MODELS}.cohere.modeling_cohere.CohereLayerNorm",
        args=((4, 12),),
        shape=(2, 5, 4, 12),
        formula=replace(LAYER, eps="variance_epsilon"),
        note="a gain for each head",
    ),
    Entry(
        path=f"{_MODELS}.olmo.modeling_olmo.OlmoLayerNorm", args=(12,), shape=TOKENS, formula=replace(LAYER, eps=1e-5)
    ),
    Entry(
        path=f"{_MODELS}.nemotron.modeling_nemotron.NemotronLayerNorm1P",
        args=(12,),
        shape=TOKENS,
        formula=replace(LAYER, offset=1.0),
    ),
    Entry(
        path=f"{_MODELS}.convnext.modeling_convnext.ConvNextLayerNorm",
        args=(12,),
        keywords={"data_format": "channels_first"},
        shape=IMAGE,
        formula=CHANNELS,
    ),
    Entry(
        path=f"{_MODELS}.poolformer.modeling_poolformer.PoolFormerGroupNorm", args=(12,), shape=IMAGE, formula=GROUPS
    ),
    Entry(path=f"{_MODELS}.llama4.modeling_llama4.Llama4TextL2Norm", shape=TOKENS, formula=RMS),
    Entry(
        path=f"{_MODELS}.falcon_mamba.modeling_falcon_mamba.FalconMambaWeightlessRMSNorm",
        args=(12,),
        shape=TOKENS,
        formula=replace(RMS, eps="variance_epsilon"),
    ),
    Entry(
        path=f"{_MODELS}.deberta.modeling_deberta.DebertaLayerNorm",
        args=(12,),
        shape=TOKENS,
        formula=replace(LAYER, eps="variance_epsilon"),
    ),
    Entry(
        path=f"{_MODELS}.bamba.modeling_bamba.BambaRMSNormGated",
        args=(12, 4),
        shape=TOKENS,
        further=gated(TOKENS),
        formula=replace(GATE_FIRST, groups=3),
        plain=False,
    ),
    Entry(
        path=f"{_MODELS}.mamba2.modeling_mamba2.MambaRMSNormGated",
        args=(12, 4),
        shape=TOKENS,
        further=gated(TOKENS),
        formula=replace(GATE_FIRST, groups=3),
        plain=False,
    ),
    Entry(
        path=f"{_MODELS}.zamba2.modeling_zamba2.Zamba2RMSNormGated",
        args=(12, 4),
        shape=TOKENS,
        further=gated(TOKENS),
        plain=False,
        formula=replace(GATE_FIRST, groups=3),
        note="of three groups",
    ),
    Entry(
        path=f"{_MODELS}.falcon_h1.modeling_falcon_h1.FalconH1RMSNormGated",
        args=(12,),
        keywords={"n_groups": 3, "norm_before_gate": True},
        shape=TOKENS,
        further=gated(TOKENS),
        formula=replace(GATE_LAST, groups=3),
        plain=False,
        note="the gate comes after",
    ),
    Entry(
        path=f"{_MODELS}.falcon_h1.modeling_falcon_h1.FalconH1RMSNormGated",
        args=(12,),
        keywords={"n_groups": 3, "norm_before_gate": False},
        shape=TOKENS,
        further=gated(TOKENS),
        formula=replace(GATE_FIRST, groups=3),
        plain=False,
        note="the gate comes before",
    ),
    Entry(
        path=f"{_MODELS}.qwen3_next.modeling_qwen3_next.Qwen3NextRMSNormGated",
        args=(12,),
        shape=TOKENS,
        further=gated(TOKENS),
        formula=GATE_LAST,
        plain=False,
    ),
    Entry(
        path=f"{_MODELS}.mobilebert.modeling_mobilebert.NoNorm",
        args=(12,),
        shape=TOKENS,
        norm=False,
        note="a gain and a bias",
    ),
    Entry(
        path=f"{_DETR}.DetrFrozenBatchNorm2d",
        args=(12,),
        shape=IMAGE,
        norm=False,
        note="constants",
    ),
)


PACKAGES = {"transformers": TRANSFORMERS}
