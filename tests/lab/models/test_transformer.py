"""What holds for the Transformer in every variant and kind, and at initialization."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlens.errors import GradlensError, ModelError, UnknownNameError
from gradlens.lab.models import ARRANGEMENTS
from gradlens.lab.models.arrangements import Block
from gradlens.lab.models.transformer import Transformer
from gradlens.lab.models.variants import PLAIN, WITHOUT_NORM
from gradlens.lab.norms import NORMS
from gradlens.theory import xiong2020 as theory

KINDS = ("decoder", "encoder", "encoder-decoder")
PLACEMENTS = {"pre_branch", "in_branch", "post_branch", "post_add", "final", "embed", "qk"}
BLOCKED = [name for name in ARRANGEMENTS if name != PLAIN]
VARIANTS = [
    f"{arrangement}/{norm}"
    for arrangement, norm in itertools.product(BLOCKED, NORMS)
    if arrangement not in WITHOUT_NORM or norm == "none"
]


def build(variant: str = "pre-ln", **size: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(variant, **{"vocab": 13, "width": 16, "blocks": 2, "max_length": 12, **size})  # type: ignore[arg-type]


def started(model: Transformer) -> Transformer:
    """With ReZero's factors as they are after some steps: at 0 nothing of a branch gets out or in."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_alpha"):
                parameter.fill_(0.5)
    return model


def inputs(model: Transformer) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    count = 2 if model.describe()["kind"] == "encoder-decoder" else 1
    return tuple(torch.randint(13, (3, 12 - 2 * i), generator=generator) for i in range(count))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_gives_logits_and_a_gradient_to_every_parameter(variant: str, kind: str) -> None:
    model = started(build(variant, kind=kind))
    batch = inputs(model)
    logits = model(*batch)
    assert logits.shape == (*batch[-1].shape, 13)
    F.cross_entropy(logits.flatten(0, 1), batch[-1].flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_norm_has_a_placement_and_every_placement_a_norm(variant: str, kind: str) -> None:
    model = build(variant, kind=kind)
    norm = type(NORMS[variant.partition("/")[2]](16))
    norms = {path for path, module in model.named_modules() if type(module) is norm}
    placed = {
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        for name, placement in getattr(module, "placements", {}).items()
        if placement in PLACEMENTS and getattr(module, name, None) is not None
    }
    assert placed == norms


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_blocks_are_named_by_stack_and_number(variant: str, kind: str) -> None:
    paths = [path for path, module in build(variant, kind=kind).named_modules() if isinstance(module, Block)]
    stacks = ("encoder.", "decoder.") if kind == "encoder-decoder" else ("",)
    assert paths == [f"{stack}blocks.{i}" for stack in stacks for i in range(2)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_built_from_one_seed_have_the_same_weights(variant: str) -> None:
    weights, reference = build(variant).state_dict(), build("pre-ln").state_dict()
    shared = [name for name in reference if "norm" not in name]
    scaled = SCALED if variant.partition("/")[0] in FACTORS else ()
    assert all(torch.equal(weights[name], reference[name]) for name in shared if not name.endswith(scaled))
    own = {name for name in weights if "norm" not in name} - set(shared)
    assert {name.rpartition("_")[2] for name in own} <= {"omega", "alpha"}


#: Of DeepNorm and Sub-LN for 8 blocks: what V, O, W1 and W2 are multiplied by, in a single stack, encoder and decoder.
FACTORS = {
    "deepnorm": (64 ** (-1 / 4), 0.87 * (8**4 * 8) ** (-1 / 16), 96 ** (-1 / 4)),
    "sub-ln": (math.log(16) ** 0.5, (math.log(24) * math.log(16) / 3) ** 0.5, math.log(24) ** 0.5),
}
SCALED = ("value.weight", "out.weight", "w1.weight", "w2.weight")


@pytest.mark.parametrize("init", ["xavier", "torch"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arrangement", FACTORS)
def test_deepnorm_and_sub_ln_scale_the_same_weights_but_queries_keys_and_head(
    arrangement: str, kind: str, init: str
) -> None:
    size = {"kind": kind, "init": init, "blocks": 8}
    weights, reference = build(arrangement, **size).state_dict(), build("pre-ln", **size).state_dict()
    single, encoder, decoder = FACTORS[arrangement]
    for name in (name for name in reference if "norm" not in name):
        factor = {"encoder": encoder, "decoder": decoder}.get(name.partition(".")[0], single)
        unscaled = not name.endswith(SCALED) or (arrangement == "sub-ln" and ".cross_attention." in name)
        factor = 1 if unscaled else factor
        torch.testing.assert_close(weights[name], reference[name] * factor, rtol=1e-6, atol=0, msg=name)


@pytest.mark.parametrize("variant", BLOCKED)
def test_a_decoder_does_not_see_later_tokens(variant: str) -> None:
    model = started(build(variant))
    (tokens,) = inputs(model)
    other = tokens.clone()
    other[:, 7] = (other[:, 7] + 1) % 13
    before, after = model(tokens), model(other)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.isclose(before[:, 7:], after[:, 7:]).all(-1).any()


@pytest.mark.parametrize("variant", BLOCKED)
def test_an_encoder_sees_every_token(variant: str) -> None:
    model = started(build(variant, kind="encoder"))
    (tokens,) = inputs(model)
    other = tokens.clone()
    other[:, 7] = (other[:, 7] + 1) % 13
    assert not torch.isclose(model(tokens), model(other)).all(-1).any()


@pytest.mark.parametrize("variant", BLOCKED)
def test_an_encoder_decoder_sees_the_whole_source_but_no_later_target(variant: str) -> None:
    model = started(build(variant, kind="encoder-decoder"))
    source, target = inputs(model)
    before = model(source, target)
    other = source.clone()
    other[:, -1] = (other[:, -1] + 1) % 13
    assert not torch.isclose(before, model(other, target)).all(-1).any()
    other = target.clone()
    other[:, 4] = (other[:, 4] + 1) % 13
    assert torch.equal(before[:, :4], model(source, other)[:, :4])


@pytest.mark.parametrize("kind", KINDS)
def test_description_counts_the_parameters(kind: str) -> None:
    d, f, v, t, blocks = 16, 32, 13, 12, 2
    attention, ffn, norm = 4 * d * d, 2 * d * f + f + d, 2 * d
    single = blocks * (attention + ffn + 2 * norm) + norm
    cross = blocks * (attention + norm)
    stacks = 2 * single + cross if kind == "encoder-decoder" else single
    described = build(kind=kind).describe()
    assert described["parameters"] == stacks + (v + t) * d + v * d
    assert described["ffn"] == 2 * d
    assert (described["arrangement"], described["norm"]) == ("pre-ln", "layernorm")


@pytest.mark.parametrize("variant", [*WITHOUT_NORM, *(f"{name}/none" for name in WITHOUT_NORM)])
def test_an_arrangement_without_norms_is_described_as_having_none(variant: str) -> None:
    model = build(variant)
    assert (model.describe()["norm"], model.size.norm) == ("none", "none")


@pytest.mark.parametrize("variant", BLOCKED)
def test_dropout_acts_in_training_only(variant: str) -> None:
    model = started(build(variant, dropout=0.5))
    batch = inputs(model)
    assert not torch.equal(model(*batch), model(*batch))
    model.eval()
    assert torch.equal(model(*batch), model(*batch))


@pytest.mark.parametrize("variant", [*BLOCKED, "post-ln/adanorm"])
def test_a_model_pickles(variant: str) -> None:
    model = build(variant)
    twin = pickle.loads(pickle.dumps(model))
    assert torch.equal(model(*inputs(model)), twin(*inputs(model)))


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        ({"heads": 3}, ModelError, "heads must divide width, got width=16 and heads=3"),
        ({"blocks": 0}, ModelError, "blocks must be at least 1, got 0"),
        ({"dropout": 1.0}, ModelError, "dropout must be at least 0 and below 1, got 1.0"),
        ({"kind": "decodr"}, UnknownNameError, "Did you mean decoder"),
        ({"activation": "rellu"}, UnknownNameError, "Did you mean relu"),
        ({"init": "xavir"}, UnknownNameError, "Did you mean xavier"),
        ({"variant": "prelnn"}, UnknownNameError, "Did you mean pre-ln"),
        ({"variant": "plain/adanorm"}, ModelError, "got 'plain/adanorm'.* Take 'pre-ln/adanorm' here"),
        ({"variant": "rezero/rmsnorm"}, ModelError, "'rezero' has no norm.* such as 'pre-ln/rmsnorm'"),
        ({"variant": "norm-free/layernorm"}, ModelError, "'norm-free' has no norm.* such as 'pre-ln'"),
    ],
)
def test_sizes_that_cannot_be_built_are_errors_that_say_why(
    size: dict[str, object], error: type[GradlensError], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(**size)


def test_a_batch_that_cannot_be_taken_is_an_error_that_says_why() -> None:
    with pytest.raises(ModelError, match="at most 12 tokens, got 13"):
        build()(torch.zeros(1, 13, dtype=torch.long))
    tokens = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ModelError, match="takes one tensor of tokens; got 2"):
        build()(tokens, tokens)
    with pytest.raises(ModelError, match="takes source and target, two tensors; got 1"):
        build(kind="encoder-decoder")(tokens)


# At initialization: 20 seeds, because q of a single block with collapsed tokens varies by 10 % a seed.
WIDTH, BLOCKS, VOCAB, SEEDS = 128, 8, 1000, range(20)


def test_matrices_are_xavier_normal_and_the_head_keeps_unit_variance() -> None:
    torch.manual_seed(0)
    model = Transformer("pre-ln", vocab=VOCAB, width=WIDTH, blocks=1)
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            variance = 1 / WIDTH if path == "head" else 2 / sum(module.weight.shape)
            assert float(module.weight.detach().var()) == pytest.approx(variance, rel=0.06), path
            assert module.bias is None or not module.bias.any()
    embedded = model.embedding(torch.randint(VOCAB, (8, 64)))
    assert float(embedded.detach().square().mean()) == pytest.approx(1, rel=0.03)


def at_init(variant: str) -> tuple[np.ndarray, np.ndarray]:
    """‖dL/dW2_l‖ and q_l of encoder-only models, means over seeds; q_l where the theory takes it."""
    runs = np.array([one_at_init(variant, seed) for seed in SEEDS])
    return runs[:, 0].mean(0), runs[:, 1].mean(0)


def one_at_init(variant: str, seed: int) -> tuple[list[float], list[float]]:
    torch.manual_seed(seed)
    model = Transformer(variant, kind="encoder", vocab=VOCAB, width=WIDTH, blocks=BLOCKS)
    moments: list[float] = []
    for block in model.blocks:
        if variant == "post-ln":
            block.ffn_norm.register_forward_pre_hook(
                lambda module, args: moments.append(float(args[0].detach().square().mean()))
            )
        else:
            block.register_forward_hook(lambda module, args, out: moments.append(float(out.detach().square().mean())))
    logits = model(torch.randint(VOCAB, (4, 32)))
    F.cross_entropy(logits.flatten(0, 1), torch.randint(VOCAB, (4 * 32,))).backward()
    return [float(block.ffn.w2.weight.grad.norm()) for block in model.blocks], moments


@pytest.fixture(scope="module")
def measured() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {variant: at_init(variant) for variant in ("pre-ln", "post-ln")}


def test_pre_ln_stream_grows_between_the_lines_of_lemma_2(
    measured: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    _, moments = measured["pre-ln"]
    low, high = theory.stream_second_moment_pre(BLOCKS, ffn_ratio=2)
    assert (moments >= 0.97 * low[1:]).all()
    assert (moments <= 1.03 * high[1:]).all()


def test_post_ln_stream_has_the_second_moment_of_lemma_2_in_every_block(
    measured: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    _, moments = measured["post-ln"]
    expected = theory.stream_second_moment_post(ffn_ratio=2)
    np.testing.assert_allclose(moments, expected, rtol=0.06)
    assert moments.mean() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("variant", ["pre-ln", "post-ln"])
def test_gradient_of_w2_follows_the_law_of_the_stream(
    variant: str, measured: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    norms, moments = measured[variant]
    constant = norms / theory.gradient_ratio_by_block(moments)
    assert constant.std() / constant.mean() < 0.10


def test_last_gradient_of_pre_ln_over_that_of_post_ln_is_the_root_of_their_second_moments(
    measured: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    (pre, q_pre), (post, q_post) = measured["pre-ln"], measured["post-ln"]
    assert pre[-1] / post[-1] == pytest.approx(np.sqrt(q_post[-1] / q_pre[-1]), rel=0.10)


def test_torchs_own_initialization_is_uniform_and_the_same_for_every_variant() -> None:
    models = [build(variant, width=64, ffn=256, init="torch") for variant in ("pre-ln", "post-ln/none")]
    weights = [dict(model.named_parameters()) for model in models]
    for name in ("blocks.0.ffn.w2.weight", "blocks.0.attention.query.weight", "head.weight"):
        weight = weights[0][name]
        bound = weight.shape[1] ** -0.5
        assert float(weight.abs().max()) <= bound
        assert float(weight.var()) == pytest.approx(bound**2 / 3, rel=0.1)
        assert torch.equal(weight, weights[1][name])
