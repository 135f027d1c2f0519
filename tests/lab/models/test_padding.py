"""Padding at the end of a sequence changes nothing for what is real."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradlens.lab.models import ARRANGEMENTS
from gradlens.lab.models.transformer import Transformer
from gradlens.lab.models.variants import PLAIN
from gradlens.lab.norms import NORMS

PAD = 0
# A norm and an arrangement can each mix a sequence with its padding by themselves: no need for their product.
VARIANTS = [*(f"pre-ln/{norm}" for norm in NORMS), *(name for name in ARRANGEMENTS if name != PLAIN)]


def build(variant: str, kind: str, **size: object) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(variant, kind=kind, vocab=13, width=16, blocks=4, max_length=12, pad=PAD, **size)  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if name.endswith("_alpha"):
            nn.init.constant_(parameter, 0.5)  # at its 0 nothing is attended to
    return model.double()


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_padded_sequence_has_the_logits_it_has_alone(variant: str, kind: str) -> None:
    model = build(variant, kind)
    alone = torch.tensor([[5, 3, 7]])
    together = torch.tensor([[5, 3, 7, PAD, PAD], [4, 4, 9, 2, 8]])
    torch.testing.assert_close(model(together)[:1, :3], model(alone), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_source_and_target_are_padded_each_by_itself(variant: str) -> None:
    model = build(variant, "encoder-decoder")
    sources, targets = torch.tensor([[5, 3, PAD, PAD], [4, 4, 9, 2]]), torch.tensor([[1, 6, 7, 2], [1, 2, PAD, PAD]])
    together = model(sources, targets)
    torch.testing.assert_close(together[:1], model(sources[:1, :2], targets[:1]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(together[1:, :2], model(sources[1:], targets[1:, :2]), rtol=1e-10, atol=1e-12)


def test_padding_sends_no_gradient_back() -> None:
    model = build("pre-ln", "encoder-decoder")
    source, target = torch.tensor([[5, 3, PAD, PAD]]), torch.tensor([[1, 6, PAD]])
    logits = model(source, target)
    F.cross_entropy(logits[:, :-1].flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD).backward()
    gradient = model.embedding.token.weight.grad
    assert gradient is not None
    assert (gradient[PAD] == 0).all()
    assert (gradient[[5, 3, 1]] != 0).any(1).all()


def test_without_a_padding_token_every_token_counts() -> None:
    torch.manual_seed(0)
    model = Transformer("pre-ln", kind="encoder", vocab=13, width=16, blocks=2)
    assert model.mask(torch.tensor([[0, 1]])) is None


def test_the_head_can_have_outputs_of_its_own() -> None:
    assert build("pre-ln", "encoder", outputs=3)(torch.tensor([[5, 3]])).shape == (1, 2, 3)
