"""Admin's profiling pass (Liu et al. 2020, section 5) against one done by hand."""

import pytest
import torch
from torch import Tensor

from gradlens.errors import ModelError
from gradlens.lab.models.arrangements.admin import profile
from gradlens.lab.models.transformer import Transformer

KINDS = ("decoder", "encoder", "encoder-decoder")


def build(variant: str = "admin", **size: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(variant, **{"vocab": 50, "width": 32, "blocks": 3, "max_length": 80, **size})  # type: ignore[arg-type]


def inputs(kind: str, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(50, (8, 64 - 9 * i), generator=generator) for i in range(2 if kind == "encoder-decoder" else 1)
    ]


def omegas(model: Transformer) -> list[list[Tensor]]:
    """Of each stack, in forward order."""
    stacks = [model.encoder, model.decoder] if model.size.kind == "encoder-decoder" else [model]
    names = [("attention", "ffn"), ("attention", "cross", "ffn")]
    return [
        [block.get_parameter(f"{name}_omega").detach() for block in stack.blocks for name in names[i]]
        for i, stack in enumerate(stacks)
    ]


@torch.no_grad()
def branch_variances(model: Transformer, batch: list[Tensor]) -> list[list[float]]:
    """Of the Post-LN network that Admin is with all ω at 1: run sub-layer by sub-layer."""
    stacks, memory, found = [model], None, []
    if model.size.kind == "encoder-decoder":
        stacks = [model.encoder, model.decoder]
    for stack, tokens in zip(stacks, batch, strict=True):
        x, variances = model.embedding(tokens), []
        for block in stack.blocks:
            f = block.attention(x)
            variances.append(float(((f - f.mean()) ** 2).mean()))
            x = block.attention_norm(x + f)
            if memory is not None:
                f = block.cross_attention(x, memory)
                variances.append(float(((f - f.mean()) ** 2).mean()))
                x = block.cross_norm(x + f)
            f = block.ffn(x)
            variances.append(float(((f - f.mean()) ** 2).mean()))
            x = block.ffn_norm(x + f)
        found.append(variances)
        memory = x
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_omega_squared_is_one_and_the_variances_of_all_branches_before_it_in_its_stack(kind: str) -> None:
    model, batch = build(kind=kind).double(), inputs(kind)
    profile(model, *batch)
    for found, variances in zip(omegas(model), branch_variances(model, batch), strict=True):
        for i, omega in enumerate(found):
            assert omega.shape == (32,)
            torch.testing.assert_close(omega**2, torch.full_like(omega, 1 + sum(variances[:i])), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_model_is_profiled_on_random_tokens(kind: str) -> None:
    model = build(kind=kind)
    new = [omega.clone() for stack in omegas(model) for omega in stack]
    profile(model, *inputs(kind, seed=1))
    again = [omega for stack in omegas(model) for omega in stack]
    assert new[-1][0] > 1.2
    torch.testing.assert_close(torch.stack(new), torch.stack(again), rtol=0.02, atol=0)


def test_a_new_model_is_profiled_on_no_padding() -> None:
    model = build(vocab=2, pad=0)
    new = omegas(model)[0][-1].clone()
    profile(model, torch.ones(8, 64, dtype=torch.long))
    torch.testing.assert_close(omegas(model)[0][-1], new, rtol=1e-6, atol=0)


def test_profiling_again_starts_from_one() -> None:
    model, batch = build(), inputs("decoder")
    profile(model, *batch)
    once = omegas(model)[0][-1].clone()
    profile(model, *batch)
    assert torch.equal(omegas(model)[0][-1], once)


def test_profiling_draws_no_random_number_of_the_callers_and_leaves_the_model_in_its_mode() -> None:
    build("post-ln")
    expected = torch.rand(3)
    model = build(dropout=0.5)
    assert torch.equal(torch.rand(3), expected)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    model.eval()
    profile(model, *inputs("decoder"))
    assert not any(module.training for module in model.modules())


def test_profiling_is_without_dropout() -> None:
    with_dropout, without = omegas(build(dropout=0.5)), omegas(build())
    assert all(torch.equal(a, b) for a, b in zip(with_dropout[0], without[0], strict=True))


def test_omega_is_learned() -> None:
    model = build()
    model(*inputs("decoder")).square().mean().backward()
    for block in model.blocks:
        assert block.attention_omega.grad is not None
        assert block.attention_omega.grad.abs().min() > 0


def test_omega_follows_the_weights_of_the_other_initialization() -> None:
    model = build(init="torch").double()
    new = omegas(model)[0]
    profile(model, *inputs("decoder"))
    torch.testing.assert_close(new[-1], omegas(model)[0][-1], rtol=0.02, atol=0)


def test_only_admin_is_profiled() -> None:
    with pytest.raises(ModelError, match=r"'post-ln'.* Build it as 'admin'"):
        profile(build("post-ln"), *inputs("decoder"))


def test_a_model_without_storage_can_be_built() -> None:
    with torch.device("meta"):
        assert build().blocks[0].ffn_omega.is_meta
