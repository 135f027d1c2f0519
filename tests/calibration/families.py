"""Networks of the laboratory and of transformers, small."""

import logging

from torch import nn

from gradlens.lab.models.transformer import Transformer
from tests.calibration.batches import LENGTH, VOCAB
from tests.calibration.blocks import Wrong

_SIZE = {"vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}


def zoo(variant: str, blocks: int = 4, kind: str = "decoder") -> nn.Module:
    return Transformer(variant, kind=kind, vocab=VOCAB, width=48, blocks=blocks, heads=4, max_length=LENGTH)


def pre_ln(wrong: Wrong) -> nn.Module:
    return zoo("pre-ln")


def torch_encoder(wrong: Wrong, blocks: int = 4, norm_first: bool = False) -> nn.Module:
    """Torch's own encoder over masked bytes."""
    layer = nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True, norm_first=norm_first)
    final = nn.LayerNorm(48) if norm_first else None
    encoder = nn.TransformerEncoder(layer, blocks, norm=final, enable_nested_tensor=False)
    return nn.Sequential(nn.Embedding(VOCAB, 48), encoder, nn.Linear(48, VOCAB))


def gpt2(wrong: Wrong) -> nn.Module:
    transformers = _quiet()
    sizes = {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64}
    pads = {"bos_token_id": 0, "eos_token_id": 0}
    drop = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=VOCAB, **sizes, **pads, **drop))


def llama(wrong: Wrong) -> nn.Module:
    transformers = _quiet()
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_SIZE, **ids, intermediate_size=96))


def bert(wrong: Wrong, blocks: int = 3) -> nn.Module:
    transformers = _quiet()
    sizes = {**_SIZE, "num_hidden_layers": blocks, "intermediate_size": 96}
    return transformers.BertForMaskedLM(transformers.BertConfig(**sizes, max_position_embeddings=64))


def _quiet():
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    return transformers
