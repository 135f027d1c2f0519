"""What ``watch=("attention",)`` records is what a softmax of one's own in float64 says, however attention is called."""

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# By name, before any lens is attached.
from torch.nn.functional import scaled_dot_product_attention

import gradlens

WIDTH, HEADS, LENGTH = 16, 4, 9
COLUMNS = ["sampled", "queries", "keys", "entropy", "relative_entropy", "first_share", "logit_max"]


def expected(logits: Tensor) -> pd.DataFrame:
    """What the table must hold of logits [B, H, L, S] of all queries, masked ones at -inf; query by query."""
    rows = []
    for head in range(logits.shape[1]):
        seen = []
        for query in logits[:, head].detach().double().flatten(0, 1):
            visible = query[query > -math.inf]
            if len(visible) > 1:
                p = torch.exp(visible - visible.logsumexp(0))
                entropy = float(-(p * p.log()).nansum())
                first = float(query.softmax(0)[0])
                seen.append((len(visible), entropy, entropy / math.log(len(visible)), first, float(visible.max())))
        means = pd.DataFrame(seen, columns=COLUMNS[2:])
        rows.append([logits.shape[0] * logits.shape[2], len(seen), *means.mean()[:-1], means["logit_max"].max()])
    return pd.DataFrame(rows, columns=COLUMNS)


class Attention(nn.Module):
    """Self-attention by a function of queries, keys and values, whose logits are computed beside it in float64."""

    def __init__(self, call: Callable[..., Tensor], kv_heads: int = HEADS, heads: int = HEADS) -> None:
        super().__init__()
        self.call, self.n_head, self.kv_heads = call, heads, kv_heads
        size = WIDTH // heads
        self.q = nn.Linear(WIDTH, WIDTH)
        self.k, self.v = (nn.Linear(WIDTH, kv_heads * size) for _ in range(2))
        self.logits = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2)
        k, v = (m(x).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2) for m in (self.k, self.v))
        grouped = k.detach().double().repeat_interleave(self.n_head // self.kv_heads, 1)
        self.logits = q.detach().double() @ grouped.transpose(2, 3) / math.sqrt(q.shape[-1])
        return self.call(q, k, v).transpose(1, 2).flatten(2)


class Model(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(3 * self.stem(x))


def x(batch: int = 3, length: int = LENGTH) -> Tensor:
    return torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(1))


def recorded(model: nn.Module, data: Tensor, steps: int = 1, **settings: Any) -> pd.DataFrame:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradlens.attach(model, watch=("norms", "attention"), optimizer=optimizer, strict=True, **settings) as lens:
        for _ in range(steps):
            optimizer.zero_grad()
            model(data).square().mean().backward()
            optimizer.step()
    return lens.recording.attention


def manual(softmax: Callable[[Tensor], Tensor], mask: Tensor | None = None) -> Callable[..., Tensor]:
    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return F.dropout(softmax(scores), 0.2) @ v

    return call


def flat(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads beside sequences, in three dimensions, as much code before 2023 has it."""
    weights = torch.bmm(q.flatten(0, 1) * q.shape[-1] ** -0.5, k.flatten(0, 1).transpose(1, 2)).softmax(-1)
    return torch.bmm(weights, v.flatten(0, 1)).unflatten(0, q.shape[:2])


torch.manual_seed(0)
CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
PADDED = (torch.arange(LENGTH) < torch.tensor([LENGTH, 4, 1])[:, None])[:, None, None]
BIAS = torch.randn(1, HEADS, LENGTH, LENGTH)
sdpa = F.scaled_dot_product_attention
#: How attention may be called, and what is added to its logits.
CALLS: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "F.scaled_dot_product_attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), torch.zeros(())),
    "imported by name": (lambda q, k, v: scaled_dot_product_attention(q, k, v), torch.zeros(())),
    "keywords, dropout": (
        lambda q, k, v: F.scaled_dot_product_attention(query=q, key=k, value=v, dropout_p=0.3), torch.zeros(())
    ),
    "is_causal": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), CAUSAL.log()),
    "bool mask": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, PADDED), PADDED.log()),
    "float mask": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, BIAS), BIAS),
    "three dimensions": (
        lambda q, k, v: F.scaled_dot_product_attention(
            q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        ).unflatten(0, q.shape[:2]), torch.zeros(())
    ),
    "F.softmax": (manual(lambda s: F.softmax(s, dim=-1, dtype=torch.float32)), torch.zeros(())),
    "torch.softmax, causal": (manual(lambda s: torch.softmax(s, -1), CAUSAL), CAUSAL.log()),
    "Tensor.softmax, padded": (manual(lambda s: s.softmax(dim=3), PADDED), PADDED.log()),
    "nn.Softmax": (manual(nn.Softmax(-1)), torch.zeros(())),
    "Tensor.softmax of three dimensions": (flat, torch.zeros(())),
    "einsum": (
        lambda q, k, v: (torch.einsum("bhle,bhse->bhls", q, k) / 2).softmax(-1) @ v, torch.zeros(())
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_however_it_is_called_a_softmax_of_ones_own_says_the_same(name: str) -> None:
    call, added = CALLS[name]
    attention = Attention(call)
    rows = recorded(Model(attention), x())
    assert set(rows["site"]) == {"inner"}
    assert rows["head"].tolist() == list(range(HEADS))
    pd.testing.assert_frame_equal(
        rows[COLUMNS], expected(attention.logits + added), check_dtype=False, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_heads_that_share_keys_are_told_apart(kv_heads: int) -> None:
    attention = Attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), kv_heads)
    rows = recorded(Model(attention), x())
    pd.testing.assert_frame_equal(rows[COLUMNS], expected(attention.logits), check_dtype=False, rtol=1e-4)


def test_of_many_sequences_and_queries_some_at_even_places_are_looked_at() -> None:
    attention = Attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))
    rows = recorded(Model(attention), x(20, 40))
    hidden = torch.ones(40, 40).tril().log()
    some = (attention.logits + hidden)[1::3, :, 1::3]  # 7 of 20, and 13 of 40
    assert set(rows["sampled"]) == {7 * 13}
    pd.testing.assert_frame_equal(rows[COLUMNS], expected(some), check_dtype=False, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_in_float32_or_better(dtype: torch.dtype) -> None:
    attention = Attention(lambda q, k, v: F.scaled_dot_product_attention(q, k, v)).to(dtype)
    rows = recorded(Model(attention).to(dtype), x().to(dtype))
    pd.testing.assert_frame_equal(rows[COLUMNS], expected(attention.logits), check_dtype=False, rtol=1e-3)


def test_logits_of_thousands_and_queries_that_see_no_key_are_numbers() -> None:
    mask = CAUSAL & (torch.arange(LENGTH) != 3)[:, None]
    attention = Attention(lambda q, k, v: F.scaled_dot_product_attention(1e3 * q, k, v, mask))
    rows = recorded(Model(attention), x())
    assert set(rows["queries"]) == {3 * (LENGTH - 2)}
    assert rows["entropy"].max() < 0.1
    assert rows["logit_max"].min() > 100
    assert rows[COLUMNS].notna().all(axis=None)


class Torch(nn.Module):
    """PyTorch's own layer; its weights come with it where they are asked for, which takes another way inside."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.need_weights = need_weights
        self.mha = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(LENGTH, LENGTH).masked_fill(~CAUSAL, -math.inf)
        out: Tensor = self.mha(x, x, x, attn_mask=mask, need_weights=self.need_weights)[0]
        return out


@pytest.mark.parametrize("need_weights", [True, False])
def test_both_ways_of_torchs_own_layer_are_seen(need_weights: bool) -> None:
    torch.manual_seed(0)
    model = Model(Torch(need_weights))
    with torch.no_grad():
        inner = model.inner.mha.eval()
        hidden = 3 * model.stem(x())
        mask = torch.zeros(LENGTH, LENGTH).masked_fill(~CAUSAL, -math.inf)
        weights = inner(hidden, hidden, hidden, attn_mask=mask, average_attn_weights=False)[1]
        inner.train()
    rows = recorded(model, x())
    assert set(rows["site"]) == {"inner.mha"}
    oracle = expected(weights.double().log())
    names = COLUMNS[:-1]  # weights do not tell what all logits have in common
    pd.testing.assert_frame_equal(rows[names], oracle[names], check_dtype=False, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_hugging_faces_models_are_seen_either_way(family: str, how: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if family == "gpt2":
        config = transformers.GPT2Config(vocab_size=19, n_positions=12, n_embd=16, n_layer=2, n_head=4)
    else:
        config = transformers.LlamaConfig(
            vocab_size=19, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, initializer_range=0.3,
        )  # fmt: skip
    tokens = torch.randint(19, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    weights = model(tokens, output_attentions=True).attentions
    model.set_attn_implementation(how)
    with gradlens.attach(model, watch=("norms", "attention"), strict=True) as lens:
        model(tokens, labels=tokens).loss.backward()
        lens.step()
    rows = lens.recording.attention
    name = "transformer.h.{}.attn" if family == "gpt2" else "model.layers.{}.self_attn"
    assert rows["site"].drop_duplicates().tolist() == [name.format(0), name.format(1)]
    for site, weight in zip(rows["site"].unique(), weights, strict=True):
        got, oracle = rows[rows["site"] == site].reset_index(drop=True), expected(weight.double().log())
        names = COLUMNS[:-1]
        pd.testing.assert_frame_equal(got[names], oracle[names], check_dtype=False, rtol=1e-4, atol=1e-5)
