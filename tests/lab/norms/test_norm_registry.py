"""What holds for every norm of the registry, whoever adds one."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlens.errors import UnknownNameError
from gradlens.lab.norms import NORMS, theory_of

WIDTH = 64
EPSILONS = (0.0, 1e-5, 2.0)  # the last is of the size of the variance

#: How torch's own norms treat the gradient; ours say it themselves in ``normalizes``.
TORCH = {
    nn.LayerNorm: {"centered": True, "scaled": True, "mean_gradient": True, "scale_gradient": True},
    nn.RMSNorm: {"centered": False, "scaled": True, "mean_gradient": True, "scale_gradient": True},
    nn.Identity: {"centered": False, "scaled": False, "mean_gradient": True, "scale_gradient": True},
}
#: These divide by another deviation.
UNBIASED = [name for name in NORMS if name.endswith("-unbiased")]
declared = {name: getattr(type(NORMS[name](WIDTH)), "normalizes", None) or TORCH.get(type(NORMS[name](WIDTH)))
            for name in NORMS}  # fmt: skip


def closed_form(flags: dict[str, Any], x: Tensor, g: Tensor, eps: float) -> Tensor:
    """dL/dx for g = dL/dy, written out from the equations of y; x and g are [rows, H]."""
    if not flags["scaled"]:
        return g
    H = x.shape[-1]
    centre = x.sum(-1, keepdim=True) / H if flags["centered"] else torch.zeros(1, dtype=x.dtype)
    squares = ((x - centre) ** 2).sum(-1, keepdim=True)
    if flags.get("unbiased"):
        deviation = torch.sqrt(squares / (H - 1))
        sigma, count = deviation + eps, (H - 1) * deviation / (deviation + eps)
    else:
        sigma, count = torch.sqrt(squares / H + eps), torch.tensor(H)
    y = (x - centre) / sigma
    a = g.clone()
    if flags["centered"] and flags["mean_gradient"]:
        a -= g.sum(-1, keepdim=True) / H
    if flags["scale_gradient"]:
        a -= y * (g * y).sum(-1, keepdim=True) / count
    return a / sigma


@pytest.fixture(params=["independent", "correlated"])
def rows(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    """x and grad_output [200, WIDTH] in float64, the latter independent of x or aligned with it."""
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(200, WIDTH, generator=generator, dtype=torch.float64) + 1.5
    g = torch.randn(200, WIDTH, generator=generator, dtype=torch.float64) + 0.3
    return x, g + 0.5 * x if request.param == "correlated" else g


@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("name", [name for name in NORMS if declared[name] is not None])
def test_gradient_is_the_closed_form_of_what_the_norm_declares(
    name: str, eps: float, rows: tuple[Tensor, Tensor]
) -> None:
    x, grad_output = rows
    norm = NORMS[name](WIDTH, eps).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, mean=1.0, generator=generator)
    x.requires_grad_()
    norm(x).backward(grad_output)
    gain = getattr(norm, "weight", None)
    g = grad_output if gain is None else grad_output * gain.detach()
    torch.testing.assert_close(x.grad, closed_form(declared[name], x.detach(), g, eps), rtol=0, atol=1e-12)


def test_only_norms_made_of_others_declare_nothing() -> None:
    silent = [name for name in NORMS if declared[name] is None]
    assert set(silent) == {"adanorm", "adanorm-undetached", "adanorm-unbiased"}


@pytest.mark.parametrize("name", NORMS)
def test_eps_is_the_same_by_default_in_every_norm(name: str) -> None:
    epsilons = [module.eps for module in NORMS[name](WIDTH).modules() if hasattr(module, "eps")]
    assert set(epsilons) <= {1e-5}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", NORMS)
def test_norm_keeps_shape_and_dtype_and_stays_finite_for_large_inputs(name: str, dtype: torch.dtype) -> None:
    x = (1000 * torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(0))).to(dtype)
    out = NORMS[name](WIDTH).to(dtype)(x)
    assert out.shape == x.shape
    assert out.dtype == dtype
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", NORMS)
def test_norm_pickles_and_copies_to_the_same_function(name: str) -> None:
    norm, x = NORMS[name](WIDTH), torch.randn(4, WIDTH)
    for twin in (pickle.loads(pickle.dumps(norm)), copy.deepcopy(norm)):
        assert torch.equal(norm(x), twin(x))


@pytest.mark.parametrize("name", NORMS)
def test_norm_has_no_parameters_but_gain_and_bias(name: str) -> None:
    assert {key for key, _ in NORMS[name](WIDTH).named_parameters()} <= {"weight", "bias"}


@pytest.mark.parametrize("name", [n for n in NORMS if n.startswith(("layernorm-", "detachnorm")) and n not in UNBIASED])
def test_forward_pass_is_that_of_layernorm_without_gain_and_bias(name: str) -> None:
    x = 3 * torch.randn(50, WIDTH, dtype=torch.float64) + 1.5
    plain = nn.LayerNorm(WIDTH, elementwise_affine=False)
    torch.testing.assert_close(NORMS[name](WIDTH)(x), plain(x), rtol=0, atol=1e-12)


def test_misspelt_norm_is_an_error_that_names_the_near_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean detachnorm"):
        NORMS["detatchnorm"]


@pytest.mark.parametrize("name", [name for name in NORMS if theory_of(name)])
def test_a_norm_that_names_a_theory_gives_what_the_theory_takes_for_granted(name: str) -> None:
    x = torch.randn(4000, WIDTH, generator=torch.Generator().manual_seed(0)) + 0.5
    y = NORMS[name](WIDTH)(x)
    assert 0.97 < float(y.square().mean()) < 1.05  # AdaNorm: 1.03
    centered = float(NORMS[name](WIDTH)(x + 3.0).mean()) < 0.1
    assert centered == (theory_of(name) == "layernorm")


def test_what_a_norm_says_of_theory_is_not_inherited() -> None:
    assert theory_of("adanorm") == "layernorm"
    assert theory_of("adanorm-undetached") is None
    assert theory_of("none") is None
