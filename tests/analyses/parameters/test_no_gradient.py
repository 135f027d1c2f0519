"""GL401 on real trainings: what gets no gradient, how much it explains, and where the whole gradient is lost."""

import pandas as pd
import torch
from torch import Tensor, nn

from gradlens.analysis import Finding, causes
from gradlens.recording import Recording
from tests.analyses.trained import CLASSES, CURVES, PARAMETERS, mlp, points, train


def found(recording: Recording) -> Finding:
    findings = PARAMETERS.judge(PARAMETERS.compute([recording]))
    return next(finding for finding in findings if finding.code == "GL401")


def named_first(recording: Recording) -> str:
    findings = [one for analysis in (CURVES, PARAMETERS) for one in analysis.judge(analysis.compute([recording]))]
    return causes(findings)[0].finding.code


def gradients(model: nn.Module, step: int = 0) -> list[Tensor | None]:
    """What autograd itself gives, in float64."""
    x, y = points()(step)
    model.double().zero_grad()
    nn.functional.cross_entropy(model(x.double()), y).backward()
    return [p.grad for p in model.parameters() if p.requires_grad]


class Unused(nn.Module):
    """A network with a small layer whose output nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.unused = mlp(), nn.Linear(CLASSES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        self.unused(y)
        return y


class Adapter(nn.Module):
    """A frozen layer with a product of two small matrices beside it, both 0."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.norm, self.head = nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, CLASSES)
        self.requires_grad_(False)
        self.a, self.b = nn.Linear(16, 2, bias=False), nn.Linear(2, 16, bias=False)
        nn.init.zeros_(self.a.weight)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.front(x) + self.b(self.a(x))))
        return logits


def flat() -> nn.Module:
    """A ReLU behind the last layer, whose bias keeps every output below 0."""
    model = nn.Sequential(mlp(), nn.ReLU())
    with torch.no_grad():
        model[0][-1].bias.fill_(-50.0)
    return model


def test_an_unused_layer_is_told_and_explains_nothing_of_what_the_rest_does() -> None:
    sound, wild = (train(Unused(), points(), "SGD", lr, steps=120) for lr in (0.05, 3.0))
    for recording in (sound, wild):
        one = found(recording)
        assert (one.status, one.sites, one.explains) == ("warn", ("unused.weight", "unused.bias"), ())
    assert named_first(wild) != "GL401"


def test_where_most_of_a_model_has_no_gradient_that_explains_the_loss() -> None:
    model = mlp()
    with torch.no_grad():
        model[4].bias.fill_(-100.0)  # of the last norm before the last ReLU
    one = found(train(model, points(), "SGD", 0.05))
    assert one.status == "warn"
    assert "GL306" in one.explains
    assert sum(not grad.any() for grad in gradients(model)) >= 7


def test_a_bias_that_cancels_in_a_difference_of_outputs_is_no_fault() -> None:
    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))

        def forward(self, x: Tensor) -> Tensor:
            half = len(x) // 2
            difference: Tensor = self.body(x[:half]) - self.body(x[half:])
            return difference

    one = found(train(Critic(), points(), "SGD", 0.01, loss_fn=lambda out, y: out.mean()))
    assert one.status == "pass"
    assert "of 1 biases" in one.claim


def test_where_the_whole_gradient_is_0_that_is_said_with_the_last_place_that_has_one() -> None:
    one = found(train(flat(), points(), "SGD", 0.05, steps=30))
    assert not any(grad.any() for grad in gradients(flat()))
    assert (one.status, one.value, one.onset, one.sites) == ("fail", 30, None, ("0.6",))
    assert "comes to the model's output, and not to 0.6" in one.claim
    assert named_first(train(flat(), points(), "SGD", 0.05, steps=120)) == "GL401"


def test_where_two_factors_are_both_0_the_gradient_comes_to_the_norms_and_to_no_weight() -> None:
    assert not any(grad.any() for grad in gradients(Adapter()))
    one = found(train(Adapter(), points(), "SGD", 0.05, steps=30))
    assert (one.status, one.sites) == ("fail", ("a", "b"))
    assert "as far as norm, but what is to be trained there (a and b) is multiplied by 0" in one.claim


def test_a_gradient_that_is_lost_on_the_way_is_told_with_both_places_and_from_which_step() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 32), nn.LayerNorm(32))
    head = nn.Linear(32, CLASSES).requires_grad_(False)
    cut = nn.Sequential(model, head)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        return nn.functional.cross_entropy(out, y)

    calls: list[int] = []
    # From the twentieth step on the second layer's norm gets its gradient, and hands on none of it.
    model[4].register_forward_pre_hook(lambda norm, args: (args[0] * float(len(calls) < 20),))
    model[4].requires_grad_(False)
    one = found(train(cut, points(), "SGD", 0.05, steps=40, loss_fn=loss))
    assert (one.status, one.onset, one.sites) == ("fail", 20, ("0.1",))
    assert "as far as 0.4, and not to 0.1" in one.claim


def test_single_batches_without_a_gradient_are_no_fault() -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        return nn.functional.cross_entropy(out, y) * (len(calls) % 3 != 0)

    calls: list[int] = []
    assert found(train(mlp(), points(), loss_fn=loss)).status == "pass"


def test_a_block_that_is_frozen_between_others_is_named_and_may_be_let_train() -> None:
    names = [f"blocks.{block}.w.weight" for block in range(3)]
    rows = [(step, name, 9, None if name == names[1] else 1.0) for step in range(9) for name in names]
    params = pd.DataFrame(rows, columns=["step", "name", "numel", "grad_norm"])
    steps = pd.DataFrame({"step": range(9), "loss": 1.0})
    meta = {"kind": "attached", "label": "run", "frozen": [names[1]]}
    one = found(Recording.from_tables(meta, steps=steps, params=params))
    assert (one.status, one.sites) == ("warn", ("blocks.1",)), one.claim
    assert "requires_grad_(True)" in one.remedies[0]
