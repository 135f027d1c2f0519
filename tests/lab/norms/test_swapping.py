"""swap: the norms of a model that exists, replaced in place by those of the registry."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradlens
from gradlens import swap
from gradlens.errors import GradlensError, ModelError, UnknownNameError
from gradlens.lab.models.transformer import Transformer
from gradlens.lab.norms import NORMS
from gradlens.lab.norms.adanorm import AdaNorm
from gradlens.lab.norms.rmsnorm import RMSNorm

H = 8


class OwnRMSNorm(nn.Module):
    """Somebody's RMSNorm, written as in T5 and Llama."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        square = hidden_states.float().square().mean(-1, keepdim=True)
        return self.weight * (hidden_states.float() * torch.rsqrt(square + self.variance_epsilon)).to(hidden_states)


class GemmaLikeNorm(OwnRMSNorm):
    """Its gain is 1 + weight."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon) * (1 + self.weight)


class NormThatIsNone(OwnRMSNorm):
    """Has all attributes of a norm, and does something else."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class OwnForward(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(-1))


class NoEps(nn.Module):
    """As in nanoGPT: the eps is in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(H))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (H,), self.weight, None, 1e-5)


NoEps.__name__ = "LayerNorm"


def net(*norms: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, H), *norms, nn.Linear(H, 3))


def only(model: nn.Module, path: str = "1") -> nn.Module:
    return model.get_submodule(path)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("old", [nn.LayerNorm, nn.RMSNorm, OwnRMSNorm], ids=lambda cls: cls.__name__)
def test_every_norm_of_the_registry_takes_the_place_of_every_vector_norm(old: type[nn.Module], name: str) -> None:
    model = net(old(H, eps=1e-3))  # type: ignore[call-arg]
    report = swap(model, name)
    is_same = name == "layernorm" and old is nn.LayerNorm
    assert type(only(model)) is NORMS[name]
    assert [place.paths for place in report.replaced] == ([] if is_same else [("1",)])
    eps = [module.eps for module in only(model).modules() if hasattr(module, "eps")]
    assert set(eps) <= {1e-3}
    model(torch.randn(5, 4)).sum().backward()


@pytest.mark.parametrize("name", NORMS)
def test_a_new_norm_has_parameters_of_its_own_shapes(name: str) -> None:
    model = net(nn.LayerNorm(H))
    swap(model, name)
    fresh = NORMS[name](H)
    shapes = {key: parameter.shape for key, parameter in only(model).named_parameters()}
    assert shapes == {key: parameter.shape for key, parameter in fresh.named_parameters()}


def test_the_model_then_computes_the_new_norm() -> None:
    torch.manual_seed(0)
    model, x = net(nn.LayerNorm(H)), torch.randn(6, 4)
    swap(model, "adanorm", scale=2.0, k=0.3)
    y = F.layer_norm(model[0](x), (H,))
    torch.testing.assert_close(model(x), model[2](2 * (1 - 0.3 * y) * y))


def test_gain_and_bias_are_the_very_parameters_where_the_new_norm_has_them() -> None:
    model = net(nn.LayerNorm(H), nn.LayerNorm(H))
    gain = only(model).weight
    model[2].weight = gain  # two norms share one gain
    nn.init.normal_(gain)
    gain.requires_grad_(False)
    report = swap(model, "rmsnorm")
    assert only(model).weight is gain is only(model, "2").weight
    assert not gain.requires_grad
    assert report.removed == ("1.bias", "2.bias")
    assert report.added == ()


def test_a_gain_of_one_plus_weight_keeps_its_value() -> None:
    model = net(GemmaLikeNorm(H))
    nn.init.normal_(only(model).weight)
    x = torch.randn(6, 4)
    before = model(x)
    swap(model, "rmsnorm")
    torch.testing.assert_close(model(x), before)


def test_a_bias_that_was_not_there_starts_at_zero_and_is_named() -> None:
    model = net(OwnRMSNorm(H))
    report = swap(model, "layernorm")
    assert report.added == ("1.bias",)
    assert not only(model).bias.any()


@pytest.mark.parametrize("name", ["layernorm", "rmsnorm", "adanorm"])
@pytest.mark.parametrize("old", [nn.LayerNorm(H, elementwise_affine=False), nn.LayerNorm(H), OwnRMSNorm(H)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_type_device_and_mode_are_kept(name: str, old: nn.Module, dtype: torch.dtype) -> None:
    model = net(copy.deepcopy(old)).to(dtype).eval()
    swap(model, name)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert not any(module.training for module in model.modules())
    assert model(torch.randn(2, 4, dtype=dtype)).dtype == dtype
    elsewhere = net(nn.LayerNorm(H)).to("meta")
    swap(elsewhere, name)
    assert {p.device.type for p in elsewhere.parameters()} == {"meta"}


def test_a_shared_norm_is_replaced_once_and_stays_shared() -> None:
    shared = nn.LayerNorm(H)
    model = net(shared, nn.Linear(H, H), shared)
    model.alias = shared
    report = swap(model, "adanorm")
    assert [place.paths for place in report.replaced] == [("1", "3", "alias")]
    assert isinstance(only(model), AdaNorm)
    assert only(model) is only(model, "3") is model.alias


def test_a_norm_in_a_shared_block_is_replaced_under_each_of_its_names() -> None:
    block = nn.Sequential(nn.LayerNorm(H), nn.Linear(H, H))
    model = nn.Sequential(block, block)
    assert [place.paths for place in swap(model, "rmsnorm").replaced] == [("0.0", "1.0")]
    assert isinstance(model[0][0], RMSNorm)


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (nn.BatchNorm1d(H), "over the batch"),
        (nn.SyncBatchNorm(H), "over the batch"),
        (nn.GroupNorm(2, H), "groups of channels"),
        (nn.InstanceNorm1d(H), "each channel of a sample"),
        (nn.LocalResponseNorm(2), "neighbouring channels"),
        (nn.LayerNorm((3, H)), "last 2 dimensions together"),
        (OwnForward(H), "LayerNorm with a forward of its own"),
        (NormThatIsNone(H), "does not give what LayerNorm or RMSNorm would"),
        (nn.utils.parametrizations.weight_norm(nn.LayerNorm(H)), "its parameters are parametrized"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_no_vector_norm_or_not_understood_is_left_and_said_why(norm: nn.Module, reason: str) -> None:
    model = net(norm)
    report = swap(model, "adanorm")
    assert only(model) is norm
    assert report.replaced == ()
    (place,) = report.left
    assert place.paths == ("1",)
    assert reason in place.reason
    assert f"1 ({type(norm).__name__}): " in str(report)


def test_an_eps_that_stands_in_the_code_alone_is_measured_and_kept() -> None:
    model = net(NoEps())
    assert len(swap(model, "layernorm").replaced) == 1
    assert only(model).eps == pytest.approx(1e-5, rel=1e-9)


def test_a_norm_with_hooks_is_left_so_that_they_are_not_lost() -> None:
    model = net(nn.LayerNorm(H))
    handle = only(model).register_forward_hook(lambda *args: None)
    assert "hooks" in swap(model, "adanorm").left[0].reason
    handle.remove()
    assert len(swap(model, "adanorm").replaced) == 1


@pytest.mark.parametrize("options", [{}, {"scale": 2.0}])
@pytest.mark.parametrize("name", ["adanorm", "adanorm-undetached"])
def test_the_same_swap_again_changes_nothing(name: str, options: dict[str, float]) -> None:
    model = Transformer("pre-ln", vocab=5, width=H, blocks=2, heads=2)
    first = swap(model, name, **options)
    modules = list(model.modules())
    again = swap(model, name, **options)
    assert len(first.replaced) == len(again.left) == 5
    assert (again.replaced, again.removed, again.added, again.notes) == ((), (), (), ())
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert {place.reason for place in again.left} == {f"it is {name} already"}


def test_other_options_replace_the_same_norm() -> None:
    model = net(nn.LayerNorm(H))
    swap(model, "adanorm")
    assert len(swap(model, "adanorm", scale=2.0).replaced) == 1
    assert only(model).factor.scale == 2.0


@pytest.mark.parametrize("name", NORMS)
def test_the_zoos_own_norms_can_be_swapped_for_each_other(name: str) -> None:
    if name == "none":
        pytest.skip("an identity does not say that it stands where a norm was")
    model = Transformer(f"post-ln/{name}", vocab=5, width=H, blocks=2, heads=2)
    swap(model, "layernorm")
    assert sum(type(module) is nn.LayerNorm for module in model.modules()) == 4


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("name", ["adanorm", "rmsnorm", "none", "layernorm-simple"])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True", "ignore:The PyTorch API of nested tensors")
def test_torchs_encoder_trains_and_evaluates_with_the_new_norm(name: str, norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(H, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(H))
    report = swap(model, name)
    assert [place.paths[0] for place in report.replaced] == [f"layers.{i}.norm{j}" for i in (0, 1) for j in (1, 2)] + [
        "norm"
    ]
    assert any("fused inference path" in note for note in report.notes)
    x = torch.randn(3, 5, H)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[:, 4:] = True
    trained = model(x, src_key_padding_mask=padding)
    trained.sum().backward()
    model.eval()
    with torch.no_grad():
        evaluated = model(x, src_key_padding_mask=padding)
        alone = model(x)
    torch.testing.assert_close(evaluated[:, :4], trained[:, :4].detach())
    assert torch.isfinite(alone).all()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_torchs_encoder_with_its_own_norms_keeps_its_fused_path() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(H, 2, 16, batch_first=True), 1)
    assert swap(model, "layernorm").notes == ()
    assert model.layers[0].activation_relu_or_gelu == 1
    assert model.use_nested_tensor


def test_the_lens_sees_the_new_norms() -> None:
    model = Transformer("pre-ln", vocab=5, width=H, blocks=2, heads=2)
    swap(model, "adanorm")
    with gradlens.attach(model) as lens:
        model(torch.zeros(2, 3, dtype=torch.long)).sum().backward()
        lens.step()
    assert set(lens.recording.sites.query("kind == 'norm'")["norm"]) == {"layernorm-simple"}
    assert len(lens.recording.norms) == 5


def test_a_swapped_model_of_the_zoo_is_the_zoos_variant() -> None:
    tokens = torch.randint(5, (2, 3))
    torch.manual_seed(0)
    swapped = Transformer("post-ln", vocab=5, width=H, blocks=2, heads=2)
    swap(swapped, "adanorm")
    torch.manual_seed(0)
    built = Transformer("post-ln/adanorm", vocab=5, width=H, blocks=2, heads=2)
    assert torch.equal(swapped(tokens), built(tokens))
    assert swapped.state_dict().keys() == built.state_dict().keys()


def test_the_report_says_what_to_do_about_the_optimizer() -> None:
    report = swap(net(nn.LayerNorm(H), nn.BatchNorm1d(H)), "adanorm")
    assert str(report).splitlines() == [
        "1 norm replaced by adanorm: 1 LayerNorm of width 8",
        "  1",
        "1 norm left as before",
        "  2 (BatchNorm1d): it normalizes over the batch, not a vector of features",
        "Note: make the optimizer now: the model has 2 gains and biases less and 0 more. Groups without weight decay "
        "must be chosen anew, and by name rather than by isinstance(module, nn.LayerNorm), which no longer finds "
        "these norms",
    ]


@pytest.mark.parametrize(
    ("model", "name", "options", "error", "message"),
    [
        (net(nn.LayerNorm(H)), "adnorm", {}, UnknownNameError, "Did you mean adanorm"),
        (nn.LayerNorm(H), "adanorm", {}, ModelError, "this model is itself one, LayerNorm"),
        (net(nn.LayerNorm(H)), "rmsnorm", {"scale": 2.0}, ModelError, "must take the options"),
        (net(nn.LayerNorm(H)), "adanorm", {"scale": -1.0}, ModelError, "C above 0"),
        ("model", "adanorm", {}, ModelError, "got str"),
    ],
)
def test_what_cannot_be_swapped_is_an_error_and_changes_nothing(
    model: nn.Module, name: str, options: dict[str, float], error: type[GradlensError], message: str
) -> None:
    before = list(model.modules()) if isinstance(model, nn.Module) else []
    with pytest.raises(error, match=message):
        swap(model, name, **options)
    assert [id(m) for m in before] == [id(m) for m in (model.modules() if before else ())]


class TestHuggingFace:
    """Models of transformers, built from small configurations."""

    @pytest.fixture(autouse=True)
    def _transformers(self) -> None:
        self.library = pytest.importorskip("transformers")

    def build(self, name: str) -> nn.Module:
        lib = self.library
        torch.manual_seed(0)
        small = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        if name == "bert":
            return lib.BertModel(lib.BertConfig(**small, intermediate_size=32))
        if name == "llama":
            return lib.LlamaForCausalLM(lib.LlamaConfig(**small, intermediate_size=32, num_key_value_heads=2))
        if name == "gemma":
            return lib.GemmaForCausalLM(
                lib.GemmaConfig(**small, intermediate_size=32, num_key_value_heads=2, head_dim=8)
            )
        return lib.T5EncoderModel(lib.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2))

    @pytest.mark.parametrize(("name", "count"), [("bert", 5), ("llama", 5), ("gemma", 5), ("t5", 5)])
    @pytest.mark.parametrize("norm", ["adanorm", "rmsnorm"])
    def test_all_norms_of_a_model_are_replaced_and_it_runs(self, name: str, count: int, norm: str) -> None:
        model, tokens = self.build(name).eval(), torch.randint(50, (2, 7))
        before = model(tokens)[0]
        report = swap(model, norm)
        assert len(report.replaced) == count
        assert report.left == ()
        after = model(tokens)[0]
        if norm == "rmsnorm" and name != "bert":  # it is what was there
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
            assert report.removed == report.added == ()
        else:
            assert not torch.allclose(after, before, atol=1e-3)
        after.sum().backward()
