"""Every arrangement against its paper's equations, written out by hand, and what its paper says of a new network."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.lab.models.transformer import Transformer
from gradlens.lab.models.variants import ARRANGEMENTS, PLAIN, WITHOUT_NORM
from gradlens.lens.sites import discover

WIDTH, HEADS, BLOCKS, VOCAB = 16, 2, 4, 11
State = dict[str, Tensor]


def attend(w: State, at: str, x: Tensor, memory: Tensor, *, causal: bool) -> Tensor:
    """Multi-head attention, one head and one sequence at a time, with Sub-LN's norm where there is one."""
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
        out[b] = inner(w, at, torch.cat(heads, -1)) @ w[f"{at}.out.weight"].T
    return out


def norm(w: State, at: str, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    sigma = ((x - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return w[f"{at}.weight"] * (x - mean) / sigma + w[f"{at}.bias"]


def feed(w: State, at: str, x: Tensor) -> Tensor:
    hidden = (x @ w[f"{at}.w1.weight"].T + w[f"{at}.w1.bias"]).clamp(min=0)
    return inner(w, at, hidden) @ w[f"{at}.w2.weight"].T + w[f"{at}.w2.bias"]


def inner(w: State, at: str, x: Tensor) -> Tensor:
    return norm(w, f"{at}.inner_norm", x) if f"{at}.inner_norm.weight" in w else x


@dataclass(frozen=True)
class Here:
    """Block `number` of `BLOCKS`, from 1: its weights, and the memory in a decoder that has one."""

    w: State
    at: str
    number: int
    stack: str
    memory: Tensor | None

    @property
    def causal(self) -> bool:
        return self.stack in ("decoder-only", "decoder")

    def norm(self, name: str, x: Tensor) -> Tensor:
        return norm(self.w, f"{self.at}.{name}", x)

    def parameter(self, name: str) -> Tensor:
        return self.w[f"{self.at}.{name}"]

    def attention(self, x: Tensor) -> Tensor:
        return attend(self.w, f"{self.at}.attention", x, x, causal=self.causal)

    def cross(self, x: Tensor) -> Tensor:
        assert self.memory is not None
        return attend(self.w, f"{self.at}.cross_attention", x, self.memory, causal=False)

    def ffn(self, x: Tensor) -> Tensor:
        return feed(self.w, f"{self.at}.ffn", x)

    def branches(self) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        yield "attention", self.attention
        if self.memory is not None:
            yield "cross", self.cross
        yield "ffn", self.ffn


def pre_ln(b: Here, x: Tensor) -> Tensor:
    x3 = x + b.attention(b.norm("attention_norm", x))
    if b.memory is not None:
        x3 = x3 + b.cross(b.norm("cross_norm", x3))
    return x3 + b.ffn(b.norm("ffn_norm", x3))


def post_ln(b: Here, x: Tensor) -> Tensor:
    x3 = b.norm("attention_norm", x + b.attention(x))
    if b.memory is not None:
        x3 = b.norm("cross_norm", x3 + b.cross(x3))
    return b.norm("ffn_norm", x3 + b.ffn(x3))


def peri_ln(b: Here, x: Tensor) -> Tensor:
    for name, f in b.branches():
        x = x + b.norm(f"{name}_out_norm", f(b.norm(f"{name}_norm", x)))
    return x


def layernorm_scaling(b: Here, x: Tensor) -> Tensor:
    for name, f in b.branches():
        x = x + f(b.norm(f"{name}_norm", x) / math.sqrt(b.number))
    return x


def mix_ln(b: Here, x: Tensor) -> Tensor:
    return post_ln(b, x) if b.number == 1 else pre_ln(b, x)  # a quarter of the four


def deepnorm(b: Here, x: Tensor) -> Tensor:
    n = 4
    single = (2 * n) ** (1 / 4)
    alpha = {"encoder-only": single, "decoder-only": single,
             "encoder": 0.81 * (n**4 * n) ** (1 / 16), "decoder": (3 * n) ** (1 / 4)}[b.stack]  # fmt: skip
    for name, f in b.branches():
        x = b.norm(f"{name}_norm", alpha * x + f(x))
    return x


def admin(b: Here, x: Tensor) -> Tensor:
    for name, f in b.branches():
        x = b.norm(f"{name}_norm", b.parameter(f"{name}_omega") * x + f(x))
    return x


def b2t(b: Here, x: Tensor) -> Tensor:
    y = b.norm("attention_norm", x + b.attention(x))
    if b.memory is not None:
        y = b.norm("cross_norm", y + b.cross(y))
    return b.norm("ffn_norm", x + y + b.ffn(y))


def rezero(b: Here, x: Tensor) -> Tensor:
    for name, f in b.branches():
        x = x + b.parameter(f"{name}_alpha") * f(x)
    return x


def norm_free(b: Here, x: Tensor) -> Tensor:
    for _, f in b.branches():
        x = x + f(x) / math.sqrt(12 if b.stack == "decoder" else 8)
    return x


#: Sub-LN's equation is Pre-LN's; its second norm stands in the branches, which find its weights.
BY_HAND: dict[str, Callable[[Here, Tensor], Tensor]] = {
    "pre-ln": pre_ln, "post-ln": post_ln, "peri-ln": peri_ln, "sub-ln": pre_ln, "layernorm-scaling": layernorm_scaling,
    "mix-ln": mix_ln, "deepnorm": deepnorm, "admin": admin, "b2t": b2t, "rezero": rezero, "norm-free": norm_free,
}  # fmt: skip
WITH_FINAL_NORM = {"pre-ln", "peri-ln", "sub-ln", "layernorm-scaling", "mix-ln"}


def by_hand(w: State, variant: str, stack: str, tokens: Tensor, memory: Tensor | None = None) -> Tensor:
    """The stream after all blocks of a stack and, where there is one, the norm after them."""
    at = f"{stack}." if stack in ("encoder", "decoder") else ""
    x = w["embedding.token.weight"][tokens] + w["embedding.position.weight"][: tokens.shape[1]]
    for i in range(BLOCKS):
        x = BY_HAND[variant](Here(w, f"{at}blocks.{i}", i + 1, stack, memory), x)
    return norm(w, f"{at}final_norm", x) if variant in WITH_FINAL_NORM else x


def model_and_weights(variant: str, kind: str) -> tuple[Transformer, State]:
    torch.manual_seed(0)
    model = Transformer(variant, kind=kind, vocab=VOCAB, width=WIDTH, heads=HEADS, blocks=BLOCKS, max_length=8).double()
    # Gains, biases, scales and sharp attention: nothing at a value that hides a mistake. Less where no norm holds it.
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3 if variant in WITHOUT_NORM else 0.7)
    return model, {name: value.detach() for name, value in model.state_dict().items()}


def test_every_arrangement_has_its_equation_by_hand() -> None:
    assert set(BY_HAND) == {name for name in ARRANGEMENTS if name != PLAIN}


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
@pytest.mark.parametrize("variant", BY_HAND)
def test_a_single_stack_computes_the_equations(variant: str, kind: str) -> None:
    model, w = model_and_weights(variant, kind)
    tokens = torch.randint(VOCAB, (3, 7))
    x = by_hand(w, variant, f"{kind}-only", tokens)
    torch.testing.assert_close(model(tokens), F.linear(x, w["head.weight"]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("variant", BY_HAND)
def test_an_encoder_decoder_attends_to_the_encoders_output_between_attention_and_ffn(variant: str) -> None:
    model, w = model_and_weights(variant, "encoder-decoder")
    source, target = torch.randint(VOCAB, (3, 7)), torch.randint(VOCAB, (3, 5))
    x = by_hand(w, variant, "decoder", target, memory=by_hand(w, variant, "encoder", source))
    torch.testing.assert_close(model(source, target), F.linear(x, w["head.weight"]), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("variant", "norms"),
    [("pre-ln", 9), ("post-ln", 8), ("peri-ln", 17), ("sub-ln", 17), ("layernorm-scaling", 9), ("mix-ln", 9),
     ("deepnorm", 8), ("admin", 8), ("b2t", 8), ("rezero", 0), ("norm-free", 0)],
)  # fmt: skip
def test_four_blocks_have_this_many_norms(variant: str, norms: int) -> None:
    model, _ = model_and_weights(variant, "decoder")
    assert sum(isinstance(module, nn.LayerNorm) for module in model.modules()) == norms


def test_sub_ln_norms_all_branches_but_cross_attention_before_their_last_matrix() -> None:
    _, w = model_and_weights("sub-ln", "encoder-decoder")
    inner_norms = {name.split(".")[3] for name in w if name.startswith("decoder.") and ".inner_norm." in name}
    branches = {name.split(".")[3] for name in w if name.startswith("decoder.") and name.endswith(".out.weight")}
    assert (inner_norms, branches) == ({"attention", "ffn"}, {"attention", "cross_attention"})


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


@pytest.mark.parametrize("variant", ["post-ln", "peri-ln", "mix-ln"])
def test_without_norms_these_arrangements_are_the_same_function(variant: str) -> None:
    torch.manual_seed(0)
    pre = Transformer("pre-ln/none", vocab=11, width=WIDTH, blocks=4)
    other = Transformer(f"{variant}/none", vocab=11, width=WIDTH, blocks=4)
    other.load_state_dict(pre.state_dict())
    tokens = torch.randint(11, (2, 9))
    assert torch.equal(pre(tokens), other(tokens))


def placements(variant: str) -> dict[str, str | None]:
    """Of the norms that the lens finds, in every one of whose blocks they stand."""
    model = Transformer(variant, vocab=11, width=WIDTH, blocks=4)
    sites = discover(model, ("norms", "blocks"))
    assert sum(site.kind == "block" for site in sites) == 4
    return {site.path: site.placement for site in sites if site.norm is not None}


def test_the_lens_sees_mix_ln_as_post_ln_in_the_first_quarter_and_pre_ln_after_it() -> None:
    expected = {f"blocks.{i}.{name}_norm": "pre_branch" if i else "post_add"
                for i in range(4) for name in ("attention", "ffn")}  # fmt: skip
    assert placements("mix-ln") == {**expected, "final_norm": "final"}


@pytest.mark.parametrize(
    ("variant", "norm", "word"), [("sub-ln", "{}.inner_norm", "in_branch"), ("peri-ln", "{}_out_norm", "post_branch")]
)
def test_the_lens_sees_second_norms_in_the_branch_or_at_its_end(variant: str, norm: str, word: str) -> None:
    first = {f"blocks.{i}.{name}_norm": "pre_branch" for i in range(4) for name in ("attention", "ffn")}
    second = {f"blocks.{i}.{norm.format(name)}": word for i in range(4) for name in ("attention", "ffn")}
    assert placements(variant) == {**first, **second, "final_norm": "final"}


def test_new_rezero_is_the_identity_and_its_first_gradients_are_those_of_the_factors_alone() -> None:
    torch.manual_seed(0)
    model = Transformer("rezero", kind="encoder", vocab=VOCAB, width=WIDTH, blocks=3)
    tokens = torch.randint(VOCAB, (2, 9))
    logits = model(tokens)
    assert torch.equal(logits, model.head(model.embedding(tokens)))
    logits.square().sum().backward()
    for name, parameter in model.blocks.named_parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) == name.endswith("_alpha"), name


@pytest.mark.parametrize("kind", ["encoder", "encoder-decoder"])
def test_norm_free_keeps_the_stream_bounded_at_every_depth(kind: str) -> None:
    moments = []
    for blocks in (8, 64):
        torch.manual_seed(0)
        model = Transformer("norm-free", kind=kind, vocab=99, width=64, blocks=blocks, max_length=16)
        stream: list[Tensor] = []
        model.head.register_forward_pre_hook(lambda module, args, kept=stream: kept.append(args[0].detach()))
        model(*torch.randint(99, (2 if kind == "encoder-decoder" else 1, 4, 16)))
        moments.append(float(stream[0].square().mean()))
    assert moments[1] == pytest.approx(moments[0], rel=0.3)
    assert 1 < moments[1] < math.e  # each of n branches adds at most its input's second moment over n


def test_peri_ln_adds_one_to_the_streams_second_moment_in_each_branch() -> None:
    moments = torch.zeros(8)
    for seed in range(5):
        torch.manual_seed(seed)
        model = Transformer("peri-ln", kind="encoder", vocab=500, width=128, blocks=8, max_length=32)
        x = model.embedding(torch.randint(500, (4, 32))).detach()
        for i, block in enumerate(model.blocks):
            x = block(x).detach()
            moments[i] += x.square().mean() / 5
    torch.testing.assert_close(moments, 1 + 2 * torch.arange(1.0, 9), rtol=0.1, atol=0)
