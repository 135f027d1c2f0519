"""Pre-LN and Post-LN against Table 1 of Xiong et al. 2020 (2002.04745), written out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.models.transformer import Transformer

WIDTH, HEADS = 16, 2
State = dict[str, Tensor]


def attend(w: State, at: str, x: Tensor, memory: Tensor, *, causal: bool) -> Tensor:
    """Multi-head attention, one head and one sequence at a time."""
    size, out = WIDTH // HEADS, torch.zeros_like(x)
    for b in range(len(x)):
        heads = []
        for h in range(HEADS):
            rows = slice(h * size, (h + 1) * size)
            query = x[b] @ w[f"{at}.query.weight"][rows].T
            key = memory[b] @ w[f"{at}.key.weight"][rows].T
            scores = query @ key.T / math.sqrt(size)
            if causal:
                later = torch.ones_like(scores).triu(1).bool()
                scores = scores.masked_fill(later, -math.inf)
            heads.append(
                scores.exp() / scores.exp().sum(-1, keepdim=True) @ memory[b] @ w[f"{at}.value.weight"][rows].T
            )
        out[b] = torch.cat(heads, -1) @ w[f"{at}.out.weight"].T
    return out


def norm(w: State, at: str, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    sigma = ((x - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return w[f"{at}.weight"] * (x - mean) / sigma + w[f"{at}.bias"]


def feed(w: State, at: str, x: Tensor) -> Tensor:
    hidden = (x @ w[f"{at}.w1.weight"].T + w[f"{at}.w1.bias"]).clamp(min=0)
    return hidden @ w[f"{at}.w2.weight"].T + w[f"{at}.w2.bias"]


def pre_ln(w: State, at: str, x: Tensor, memory: Tensor | None, *, causal: bool) -> Tensor:
    x1 = norm(w, f"{at}.attention_norm", x)
    x3 = x + attend(w, f"{at}.attention", x1, x1, causal=causal)
    if memory is not None:
        x3 = x3 + attend(w, f"{at}.cross_attention", norm(w, f"{at}.cross_norm", x3), memory, causal=False)
    x5 = feed(w, f"{at}.ffn", norm(w, f"{at}.ffn_norm", x3))
    return x5 + x3


def post_ln(w: State, at: str, x: Tensor, memory: Tensor | None, *, causal: bool) -> Tensor:
    x3 = norm(w, f"{at}.attention_norm", x + attend(w, f"{at}.attention", x, x, causal=causal))
    if memory is not None:
        cross = attend(w, f"{at}.cross_attention", x3, memory, causal=False)
        x3 = norm(w, f"{at}.cross_norm", x3 + cross)
    return norm(w, f"{at}.ffn_norm", x3 + feed(w, f"{at}.ffn", x3))


def embed(w: State, tokens: Tensor) -> Tensor:
    return w["embedding.token.weight"][tokens] + w["embedding.position.weight"][: tokens.shape[1]]


def table_1(w: State, variant: str, at: str, x: Tensor, memory: Tensor | None, *, causal: bool) -> Tensor:
    """Both blocks of a stack and, for Pre-LN, the norm after them."""
    for i in range(2):
        block = pre_ln if variant == "pre-ln" else post_ln
        x = block(w, f"{at}blocks.{i}", x, memory, causal=causal)
    return norm(w, f"{at}final_norm", x) if variant == "pre-ln" else x


def model_and_weights(variant: str, kind: str) -> tuple[Transformer, State]:
    torch.manual_seed(0)
    model = Transformer(variant, kind=kind, vocab=11, width=WIDTH, heads=HEADS, blocks=2, max_length=8).double()
    for parameter in model.parameters():  # gains, biases and sharp attention: nothing at a value that hides a mistake
        nn.init.normal_(parameter, std=0.7)
    return model, {name: value.detach() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
@pytest.mark.parametrize("variant", ["pre-ln", "post-ln"])
def test_a_single_stack_computes_the_steps_of_table_1(variant: str, kind: str) -> None:
    model, w = model_and_weights(variant, kind)
    tokens = torch.randint(11, (3, 7))
    x = table_1(w, variant, "", embed(w, tokens), None, causal=kind == "decoder")
    torch.testing.assert_close(model(tokens), F.linear(x, w["head.weight"]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", ["pre-ln", "post-ln"])
def test_an_encoder_decoder_attends_to_the_encoders_output_between_attention_and_ffn(variant: str) -> None:
    model, w = model_and_weights(variant, "encoder-decoder")
    source, target = torch.randint(11, (3, 7)), torch.randint(11, (3, 5))
    memory = table_1(w, variant, "encoder.", embed(w, source), None, causal=False)
    x = table_1(w, variant, "decoder.", embed(w, target), memory, causal=True)
    torch.testing.assert_close(model(source, target), F.linear(x, w["head.weight"]), rtol=0, atol=1e-10)


def test_only_pre_ln_has_a_norm_after_the_last_block() -> None:
    count = {v: sum(isinstance(m, nn.LayerNorm) for m in model_and_weights(v, "decoder")[0].modules())
             for v in ("pre-ln", "post-ln")}  # fmt: skip
    assert count == {"pre-ln": 5, "post-ln": 4}


def test_post_ln_block_output_is_normalised() -> None:
    torch.manual_seed(0)
    model = Transformer("post-ln", vocab=11, width=WIDTH, blocks=3)
    outputs: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, out: outputs.append(out))
    model(torch.randint(11, (2, 9)))
    for out in outputs:
        torch.testing.assert_close(out.mean(-1), torch.zeros(2, 9), rtol=0, atol=1e-5)
        torch.testing.assert_close(out.var(-1, correction=0), torch.ones(2, 9), rtol=1e-3, atol=0)


def test_without_norms_the_arrangements_are_the_same_function() -> None:
    torch.manual_seed(0)
    pre = Transformer("pre-ln/none", vocab=11, width=WIDTH, blocks=2)
    post = Transformer("post-ln/none", vocab=11, width=WIDTH, blocks=2)
    post.load_state_dict(pre.state_dict())
    tokens = torch.randint(11, (2, 9))
    assert torch.equal(pre(tokens), post(tokens))
