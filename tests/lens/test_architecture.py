"""Where norms stand and what the blocks are is read off the graph of the first pass, whatever the names."""

import itertools
import os
import weakref

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradlens
from gradlens.errors import GradlensError
from gradlens.lab.models.transformer import Transformer
from gradlens.lab.models.variants import ARRANGEMENTS, PLAIN, WITHOUT_NORM
from gradlens.lab.norms import NORMS
from gradlens.lens import additions, architecture, autograd_graph, placing, sites


@pytest.fixture
def nameless(monkeypatch):
    """No table of names, nothing declared."""
    monkeypatch.setattr(sites, "placements_of", lambda module: {})
    monkeypatch.setattr(sites, "declares", lambda module: False)
    monkeypatch.setattr(sites, "declares", lambda module: False)


def recorded(model, *batch, steps=1, watch=("norms", "blocks", "params"), **wishes):
    with gradlens.attach(model, watch=watch, **wishes) as lens:
        for _ in range(steps):
            output = model(*batch)
            (output if isinstance(output, torch.Tensor) else output[0]).square().mean().backward()
            lens.step()
    return lens


def said(lens):
    norms = lens.recording.sites.query("kind == 'norm'").set_index("site")
    return norms["placement"].to_dict()


def in_blocks(lens):
    norms = lens.recording.sites.query("kind == 'norm'").dropna(subset="block").set_index("site")
    return norms["block"].astype(int).to_dict()


KINDS = ("decoder", "encoder", "encoder-decoder")
BLOCKED = [name for name in ARRANGEMENTS if name not in (PLAIN, *WITHOUT_NORM)]
X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------ what the zoo declares


@pytest.mark.parametrize(("blocks", "dropout"), [(2, 0.0), (3, 0.1)])
@pytest.mark.parametrize(("arrangement", "kind"), list(itertools.product(BLOCKED, KINDS)))
def test_every_arrangement_is_read_as_its_file_declares_it(arrangement, kind, blocks, dropout, monkeypatch):
    tokens = [torch.randint(13, (2, 6), generator=torch.Generator().manual_seed(i)) for i in range(2)]
    batch = tokens if kind == "encoder-decoder" else tokens[:1]
    size = {"vocab": 13, "width": 8, "heads": 2, "max_length": 8}
    model = Transformer(arrangement, kind=kind, blocks=blocks, dropout=dropout, **size)
    declared = {site.path: site.placement for site in sites.discover(model, ("norms",)) if site.norm}
    assert "unknown" not in declared.values()
    monkeypatch.setattr(sites, "placements_of", lambda module: {})
    monkeypatch.setattr(sites, "declares", lambda module: False)
    assert said(recorded(model, *batch)) == declared


LAST = dict.fromkeys(("pre-ln", "peri-ln", "sub-ln"), "final") | dict.fromkeys(
    ("post-ln", "deepnorm", "b2t"), "post_add"
)


@pytest.mark.parametrize("arrangement", LAST)
def test_so_it_is_in_a_network_of_one_block(arrangement, nameless):
    model = Transformer(arrangement, blocks=1, vocab=13, width=8, heads=2, max_length=8)
    assert list(said(recorded(model, torch.arange(10).view(2, 5))).values())[-1] == LAST[arrangement]


def test_what_a_module_says_itself_holds_whatever_the_graph_shows():
    """One block with its norm behind the last sum has the graph of one without, and a norm of the network's."""
    block = Residual(lambda m, x: m.b(x + m.f(m.a(x)) + m.g(x)))
    block.placements = {"b": "post_add"}
    found = said(recorded(nn.Sequential(nn.Linear(8, 8), block), X))
    assert (found["1.a"], found["1.b"]) == ("pre_branch", "post_add")


@pytest.mark.parametrize("norm", [name for name in NORMS if name != "none"])
def test_so_it_is_with_any_norm(norm, monkeypatch):
    for arrangement in ("peri-ln", "b2t"):
        model = Transformer(f"{arrangement}/{norm}", vocab=13, width=8, heads=2, blocks=2, max_length=8)
        declared = {site.path: site.placement for site in sites.discover(model, ("norms",)) if site.norm}
        with monkeypatch.context() as patched:
            patched.setattr(sites, "placements_of", lambda module: {})
            patched.setattr(sites, "declares", lambda module: False)
            assert said(recorded(model, torch.arange(10).view(2, 5))) == declared


# ------------------------------------------------------------------ torch's and other people's


@pytest.mark.parametrize(("first", "place"), [(True, "pre_branch"), (False, "post_add")])
@pytest.mark.parametrize("grad", [True, False])
def test_torchs_own_layers(first, place, grad, nameless):
    """Also where the input has no gradient, so that the first block's skip is not in the graph."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, norm_first=first, batch_first=True)
    model = nn.TransformerEncoder(layer, 3, norm=nn.LayerNorm(8), enable_nested_tensor=False)
    found = said(recorded(model, X.clone().requires_grad_(grad)))
    assert found.pop("norm") == "final"
    assert set(found.values()) == {place}
    layer = nn.TransformerDecoderLayer(8, 2, 16, norm_first=first, batch_first=True)
    model = nn.TransformerDecoder(layer, 2, norm=nn.LayerNorm(8))
    found = said(recorded(model, X.clone().requires_grad_(grad), X))
    assert found.pop("norm") == "final"
    assert set(found.values()) == {place}


_SMALL = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_PRE = {"input_layernorm": "pre_branch", "post_attention_layernorm": "pre_branch"}
#: Model type, further settings, and the last part of a norm's path to its placement: read in the forward methods.
FAMILIES = {
    "olmo2": ({}, {"post_attention_layernorm": "post_branch", "post_feedforward_layernorm": "post_branch",
                   "q_norm": "qk", "k_norm": "qk", "norm": "final"}),
    "gpt_neox": ({}, {**_PRE, "final_layer_norm": "final"}),
    "phi": ({}, {"input_layernorm": "pre_branch", "final_layernorm": "final"}),
    "cohere": ({}, {"input_layernorm": "pre_branch", "norm": "final"}),
    "falcon": ({}, {"input_layernorm": "pre_branch", "ln_f": "final"}),
    "glm4": ({"num_key_value_heads": 1, "head_dim": 8},  # where post_attention is the FFN's pre-norm
             {**_PRE, "post_self_attn_layernorm": "post_branch", "post_mlp_layernorm": "post_branch", "norm": "final"}),
    "deberta-v2": ({"max_position_embeddings": 32}, {"output.LayerNorm": "post_add", "embeddings.LayerNorm": "embed"}),
    "albert": ({"embedding_size": 16, "max_position_embeddings": 32},
               {"full_layer_layer_norm": "post_add", "attention.LayerNorm": "post_add",
                "embeddings.LayerNorm": "unknown"}),
    "mamba": ({"state_size": 4}, {"norm": "pre_branch", "norm_f": "final"}),
    "deepseek_v3": ({"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "q_lora_rank": 8,
                     "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
                     "num_key_value_heads": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1},
                    {**_PRE, "q_a_layernorm": "in_branch", "kv_a_layernorm": "in_branch", "norm": "final"}),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_families_that_no_table_knows(family):
    transformers = pytest.importorskip("transformers", reason='needs transformers: pip install -e ".[hf]"')
    settings, words = FAMILIES[family]
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(
        transformers.CONFIG_MAPPING[family](**{**_SMALL, **settings}), attn_implementation="eager"
    )
    for site, placement in said(recorded(model, torch.arange(3, 15).view(2, 6))).items():
        ends = [end for end in words if f".{site}".endswith(f".{end}")]
        assert placement == words[max(ends, key=len)], site


class Conformer(nn.Module):
    """Several sums, and a norm after the last."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.last = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.f, self.g = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = x + 0.5 * self.f(self.a(x))
        return self.last(x + self.g(self.b(x)))


def test_the_norm_that_ends_the_last_block_is_no_final_one():
    found = said(recorded(nn.Sequential(nn.Linear(8, 8), *(Conformer() for _ in range(3))), X))
    assert {place for site, place in found.items() if site.endswith("last")} == {"post_add"}


# ------------------------------------------------------------------ models of one's own


class Branch(nn.Module):
    def __init__(self, width=8, norm=None):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.inner = nn.LayerNorm(2 * width)

    def forward(self, x):
        return self.down(self.inner(F.gelu(self.up(x))))


class Residual(nn.Module):
    """Arranged as it is told."""

    def __init__(self, forward, width=8):
        super().__init__()
        self.a, self.b, self.f, self.g = nn.LayerNorm(width), nn.LayerNorm(width), Branch(width), Branch(width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))
        self.arranged = forward

    def forward(self, x):
        return self.arranged(self, x)


CASES = {
    "parallel branches": (lambda m, x: m.f(m.a(x)) + m.g(m.b(x)) + x, ("pre_branch", "pre_branch")),
    "branches that are summed first": (lambda m, x: x + (m.f(m.a(x)) + m.g(m.b(x))), ("pre_branch", "pre_branch")),
    "a norm at either end": (lambda m, x: x + m.b(m.f(m.a(x))), ("pre_branch", "post_branch")),
    "a scaled branch": (lambda m, x: x + m.scale * F.dropout(m.b(m.f(m.a(x))), 0.1), ("pre_branch", "post_branch")),
    "a scaled skip": (lambda m, x: m.b(1.7 * x + m.f(m.a(x))), ("pre_branch", "post_add")),
    "a learned skip": (lambda m, x: m.b(m.scale * x + m.f(m.a(x))), ("pre_branch", "post_add")),
    "the wrong sign": (lambda m, x: m.f(m.a(x)) - x + 0 * m.b(x), ("pre_branch", "pre_branch")),
    "in place": (lambda m, x: m.b(x.clone().add_(m.f(m.a(x)))), ("pre_branch", "post_add")),
    "other arrangements of the stream": (
        lambda m, x: x + m.f(m.a(x.transpose(1, 2).contiguous().transpose(1, 2)).flatten(0, 1)).view_as(x) + m.b(x),
        ("pre_branch", "pre_branch"),
    ),
    "half precision in between": (
        lambda m, x: x + m.b(m.f(m.a(x)).bfloat16().float()),
        ("pre_branch", "post_branch"),
    ),
    "no skip": (lambda m, x: m.b(m.f(m.a(x))), ("unknown", "unknown")),
    "a gate is no skip": (lambda m, x: torch.sigmoid(m.f(m.a(x))) * m.g(m.b(x)), ("unknown", "unknown")),
}


@pytest.mark.parametrize("case", CASES)
def test_how_a_block_is_written_does_not_matter(case):
    arranged, words = CASES[case]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), *(Residual(arranged) for _ in range(2)), nn.Linear(8, 8))
    found = said(recorded(model, X))
    assert tuple(found[f"1.{name}"] for name in "ab") == words
    if words[0] != "unknown":
        assert found["1.f.inner"] == "in_branch"


class Queries(nn.Module):
    """Attention with norms of its queries and keys, rotated or not, by a kernel or by hand."""

    def __init__(self, by_hand):
        super().__init__()
        self.pre, self.qkv, self.by_hand = nn.LayerNorm(8), nn.Linear(8, 24), by_hand
        self.q_n, self.k_n, self.v_n = nn.RMSNorm(4), nn.RMSNorm(4), nn.RMSNorm(4)

    def rotate(self, q):
        a, b = q.chunk(2, -1)
        return q * 0.8 + torch.cat((-b, a), -1) * 0.6

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.qkv(self.pre(x)).chunk(3, -1))
        q, k, v = self.rotate(self.q_n(q)), self.rotate(self.k_n(k)), self.v_n(v)
        if self.by_hand:
            mixed = torch.softmax(q @ k.transpose(-1, -2) / 2 + torch.zeros(5, 5), -1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + mixed.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("by_hand", [True, False])
def test_queries_and_keys_are_told_from_values(by_hand):
    found = said(recorded(nn.Sequential(nn.Linear(8, 8), Queries(by_hand)), X))
    assert found == {"1.pre": "pre_branch", "1.q_n": "qk", "1.k_n": "qk", "1.v_n": "in_branch"}


class Shortcut(nn.Module):
    """A ResNet's basic block."""

    def __init__(self, width, out, stride):
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(width, out, 3, stride, 1), nn.BatchNorm2d(out)
        self.c2, self.n2 = nn.Conv2d(out, out, 3, 1, 1), nn.BatchNorm2d(out)
        same = width == out and stride == 1
        self.down = None if same else nn.Sequential(nn.Conv2d(width, out, 1, stride), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.n2(self.c2(F.relu(self.n1(self.c1(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))


class ResNet(nn.Module):
    """Its blocks stand one by one, in no list."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4)
        self.first, self.second, self.third = Shortcut(4, 4, 1), Shortcut(4, 8, 2), Shortcut(8, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem_norm(self.stem(x))), 2)
        return self.head(self.third(self.second(self.first(x))).mean((2, 3)))


def test_a_projected_skip_belongs_to_the_stream_and_its_norm_to_no_branch():
    lens = recorded(ResNet(), torch.randn(4, 3, 8, 8))
    assert said(lens) == {
        "stem_norm": "embed", "first.n1": "in_branch", "first.n2": "post_branch", "second.n1": "in_branch",
        "second.n2": "post_branch", "second.down.1": "unknown", "third.n1": "in_branch", "third.n2": "post_branch",
    }  # fmt: skip


class LSTM(nn.Module):
    """With a norm in each gate's sum, over time."""

    def __init__(self, width=8):
        super().__init__()
        self.width, self.x, self.h = width, nn.Linear(width, 4 * width), nn.Linear(width, 4 * width)
        self.gates, self.cell = nn.LayerNorm(4 * width), nn.LayerNorm(width)

    def forward(self, x):
        h = c = x.new_zeros(len(x), self.width)
        for t in range(x.shape[1]):
            i, f, g, o = self.gates(self.x(x[:, t]) + self.h(h)).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(self.cell(c))
        return h


def test_gates_over_time_are_no_residual_additions():
    model = nn.Sequential(nn.Linear(8, 8), LSTM())
    assert said(recorded(model, X)) == {"1.gates": "unknown", "1.cell": "unknown"}


class PostLN(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.b = Branch(), nn.LayerNorm(8)

    def forward(self, x):
        return self.b(x + self.f(x))


class Layers(nn.Module):
    """Post-LN layers; what becomes of all their outputs is told."""

    def __init__(self, order):
        super().__init__()
        self.first, self.norm, self.order = nn.Linear(8, 8), nn.LayerNorm(8), order
        self.layers = nn.ModuleList(PostLN() for _ in range(3))

    def forward(self, x):
        hidden = [self.norm(self.first(x))]
        for layer in self.layers:
            hidden.append(layer(hidden[-1]))
        return self.order(self, hidden)


@pytest.mark.parametrize(
    "order",
    [
        lambda m, h: (h[-1] + h[-2]) / 2,
        lambda m, h: (h[0] + h[-1]) / 2,
        lambda m, h: sum(0.25 * one for one in h),
    ],
    ids=["last two", "first and last", "all"],
)
def test_an_average_of_layers_is_no_branch(order):
    found = said(recorded(Layers(order), X))
    assert {found[f"layers.{i}.b"] for i in range(3)} == {"post_add"}


def test_where_only_the_last_layer_is_trained_nothing_is_taken_for_the_embedding():
    model = Layers(lambda m, h: h[-1])
    model.requires_grad_(False)
    model.layers[2].requires_grad_(True)
    assert said(recorded(model, X))["layers.2.b"] in ("post_add", "unknown")


class Adapter(nn.Module):
    """Pre-LN with a residual adapter at the end of its branch (Houlsby et al. 2019)."""

    def __init__(self):
        super().__init__()
        self.a, self.f, self.down, self.up = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 2), nn.Linear(2, 8)

    def forward(self, x):
        y = self.f(self.a(x))
        return x + (y + self.up(torch.relu(self.down(y))))


def test_a_skip_inside_of_a_branch_hides_none_outside():
    found = said(recorded(nn.Sequential(nn.Linear(8, 8), *(Adapter() for _ in "ab"), nn.LayerNorm(8)), X))
    assert found == {"1.a": "pre_branch", "2.a": "pre_branch", "3": "final"}


class Two(nn.Module):
    """Two heads whose outputs are put together: no skip is among them."""

    def __init__(self, together):
        super().__init__()
        self.norm, self.a, self.b, self.c = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.together = together

    def forward(self, x):
        return self.together(self, self.norm(x))


def test_a_gate_of_its_own_is_part_of_a_branch_beside_a_projected_skip():
    class Excited(Shortcut):
        """A ResNet's block with squeeze and excitation."""

        def __init__(self):
            super().__init__(4, 8, 2)
            self.squeeze = nn.Conv2d(8, 8, 1)

        def forward(self, x):
            y = F.relu(self.n1(self.c1(x)))
            y = self.n2(self.c2(y * torch.sigmoid(self.squeeze(y.mean((2, 3), keepdim=True)))))
            return F.relu(y + self.down(x))

    stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    found = said(recorded(nn.Sequential(stem, Excited()), torch.randn(4, 3, 8, 8)))
    assert found == {"0.1": "embed", "1.n1": "in_branch", "1.n2": "post_branch", "1.down.1": "unknown"}


@pytest.mark.parametrize(
    "together",
    [
        lambda m, h: m.a(h) + torch.exp(m.b(h) / 2) * torch.ones(8),
        lambda m, h: m.a(h) + m.c(torch.relu(m.b(h))) * torch.sigmoid(m.b(h)),
    ],
    ids=["mean and deviation", "a gate and a shift"],
)
def test_two_heads_are_no_projected_skip(together):
    assert said(recorded(nn.Sequential(nn.Linear(8, 8), Two(together)), X)) == {"1.norm": "unknown"}


def test_full_backward_hooks_of_the_users_are_looked_through():
    model = nn.Sequential(nn.Linear(8, 8), *(Residual(CASES["a norm at either end"][0]) for _ in "ab"), nn.LayerNorm(8))
    for module in model.modules():
        module.register_full_backward_hook(lambda *grads: None)
    found = said(recorded(model, X))
    assert (found["1.a"], found["1.b"], found["3"]) == ("pre_branch", "post_branch", "final")


def test_scores_that_are_refined_again_and_again_are_read_in_no_time():
    class Refined(nn.Module):
        def __init__(self):
            super().__init__()
            self.k, self.value = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x):
            scores = self.value(x) @ self.k(self.value(x)).transpose(1, 2)
            for _ in range(200):
                scores = scores + 0.01 * torch.tanh(scores)
            return x + torch.softmax(scores, -1) @ self.value(x)

    assert said(recorded(nn.Sequential(nn.Linear(8, 8), Refined()), X)) == {"1.k": "qk"}


# ------------------------------------------------------------------ blocks


def test_a_block_that_a_later_pass_shows_again_is_recorded_once():
    class Late(ResNet):
        """Its last norm runs from the third pass on."""

        def __init__(self):
            super().__init__()
            self.late, self.passes = nn.LayerNorm(3), 0

        def forward(self, x):
            self.passes += 1
            y = super().forward(x)
            return self.late(y) if self.passes > 2 else y

    lens = recorded(Late(), torch.randn(4, 3, 8, 8), steps=4)
    rows = lens.recording.activations.query("site == 'second'")
    assert rows.groupby("step")["numel"].sum().tolist() == [4 * 8 * 2 * 2] * 3


def test_blocks_that_no_list_holds_are_found_and_recorded_from_the_second_pass_on():
    model = ResNet()
    lens = recorded(model, torch.randn(4, 3, 8, 8), steps=2)
    blocks = lens.recording.sites.query("kind == 'block'").set_index("site")["block"].astype(int).to_dict()
    assert blocks == {"first": 0, "second": 1, "third": 2}
    assert in_blocks(lens)["second.down.1"] == 1
    assert "stem_norm" not in in_blocks(lens)
    seen = lens.recording.activations.query("step == 1 and site in ['first', 'second', 'third']")
    assert seen["site"].tolist() == ["first", "first", "second", "third"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_blocks_that_the_structure_shows_are_kept_as_they_are():
    model = nn.Sequential(nn.Linear(8, 8), nn.ModuleList(), *(Residual(CASES["a norm at either end"][0]) for _ in "ab"))
    del model[1]
    stack = nn.Sequential(nn.Linear(8, 8), nn.Sequential(*(Residual(CASES["parallel branches"][0]) for _ in "abc")))
    lens = recorded(stack, X)
    assert lens.recording.sites.query("kind == 'block'")["site"].tolist() == ["1.0", "1.1", "1.2"]
    assert in_blocks(recorded(model, X)) == {f"{k}.{name}": k - 1 for k in (1, 2) for name in
                                             ("a", "b", "f.inner", "g.inner")}  # fmt: skip


# ------------------------------------------------------------------ who says what


def test_what_the_user_says_holds_whatever_the_graph_shows():
    model = nn.Sequential(nn.Linear(8, 8), Residual(CASES["parallel branches"][0]))
    found = said(recorded(model, X, placement={r"\.a$": "post_add", "inner": "qk"}))
    assert found == {"1.a": "post_add", "1.b": "pre_branch", "1.f.inner": "qk", "1.g.inner": "qk"}


@pytest.mark.parametrize(
    ("placement", "words"),
    [({"a": "before"}, "post_add"), ({"(": "final"}, "regular expressions"), ({"nowhere": "final"}, "1.a, 1.b")],
)
def test_a_placement_that_cannot_hold_is_refused(placement, words):
    model = nn.Sequential(nn.Linear(8, 8), Residual(CASES["parallel branches"][0]))
    with pytest.raises(GradlensError, match=words):
        gradlens.attach(model, placement=placement)


def test_where_all_passes_are_compiled_names_tell_and_the_audit_says_so():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False)
    compiled = torch.compile(model, backend="aot_eager")
    lens = recorded(compiled, X)
    assert len(lens.audit().setting["by_names"]) == 5
    assert "Placements by known names, for no pass showed them: layers.0.norm1" in str(lens.audit())
    assert said(lens)["layers.0.norm1"] == "post_add"
    assert "by known names" not in str(recorded(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)), X).audit())


def test_the_finished_run_on_disk_holds_what_the_pass_has_shown(tmp_path):
    model = ResNet()
    lens = recorded(model, torch.randn(4, 3, 8, 8), steps=2, out=tmp_path / "run")
    there = gradlens.load(tmp_path / "run").sites
    assert there["site"].is_unique
    assert there.set_index("site")["placement"].dropna().to_dict() == said(lens)


# ------------------------------------------------------------------ a guest


def test_a_graph_that_cannot_be_read_costs_the_placements_alone(monkeypatch):
    monkeypatch.setattr(additions, "_MOST_BITS", 10)
    model = nn.Sequential(nn.Linear(8, 8), Residual(CASES["parallel branches"][0]))
    lens = recorded(model, X)
    assert any(
        "could not be read off the model's graph (ValueError: its graph of" in one for one in lens.audit().problems()
    )
    assert set(said(lens).values()) == {"unknown"}
    assert len(lens.recording.norms) == 4
    with pytest.raises(ValueError, match="too large"):
        recorded(model, X, strict=True)


class Head(nn.Module):
    ready = False

    def forward(self, x):
        if not self.ready:
            raise MemoryError
        return x


def test_a_pass_that_shows_nothing_is_not_the_last_word():
    """The first one raises behind all norms."""
    model = nn.Sequential(nn.Linear(8, 8), Residual(CASES["parallel branches"][0]), Head())
    with gradlens.attach(model) as lens:
        with pytest.raises(MemoryError):
            model(X)
        model[2].ready = True
        model(X).sum().backward()
        lens.step()
    assert said(lens)["1.a"] == "pre_branch"


def test_nothing_of_a_pass_is_kept_after_it():
    model = nn.Sequential(nn.Linear(8, 8), Residual(CASES["parallel branches"][0]), Marked())
    with gradlens.attach(model) as lens:
        assert model(X).grad_fn is not None
        assert model[2].mark() is None
        handle = model[1].g.register_forward_pre_hook(broken)
        with pytest.raises(RuntimeError, match="broken"):
            model(X)
        handle.remove()
        model(X).sum().backward()
        lens.step()
    assert said(lens)["1.a"] == "pre_branch"


class Mark(torch.autograd.Function):
    """Its node holds something that can be asked for."""

    @staticmethod
    def forward(ctx, x, mark):
        ctx.mark = mark
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class Marked(nn.Module):
    def forward(self, x):
        mark = nn.Identity()
        self.mark = weakref.ref(mark)
        return Mark.apply(x, mark)


def broken(module, args):
    raise RuntimeError("broken")


def test_a_graph_is_read_once_and_only_in_the_first_passes(monkeypatch):
    read = []
    monkeypatch.setattr(placing, "Architecture", lambda graph: read.append(graph) or architecture.Architecture(graph))
    recorded(nn.Sequential(nn.Linear(8, 8), Residual(CASES["parallel branches"][0])), X, steps=5)
    assert len(read) == 1


def test_sums_of_thousands_of_terms_are_no_matter():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x):
            total = 0.0
            for _ in range(3000):
                total = total + self.linear(x)
            return x + self.norm(total)

    assert said(recorded(nn.Sequential(nn.Linear(8, 8), Sum()), X)) == {"1.norm": "post_branch"}


def test_operations_are_called_what_torch_calls_them():
    known = {name.partition("Backward")[0] for name in dir(torch._C._functions)}
    kinds = (autograd_graph._SAME, autograd_graph._LOOSE, autograd_graph._LOOK_UP, autograd_graph._PRODUCTS)
    assert frozenset().union(*kinds, architecture._TURNS, architecture._MASKED, architecture._PRODUCTS) <= known


def test_a_long_chain_of_norms_is_read_at_once():
    lens = recorded(nn.Sequential(nn.Linear(4, 4), *(nn.LayerNorm(4) for _ in range(1100))), torch.randn(2, 4))
    assert not lens.audit().notes
    assert not lens.audit().setting["by_names"]
