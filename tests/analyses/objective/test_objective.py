"""Real small trainings, sick and healthy: what the loss asks of the output, and what goes in."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradlens
from analyses.making import SYMPTOMS
from analyses.objective import ANALYSIS
from analyses.parameters import ANALYSIS as PARAMETERS
from gradlens.analysis import Finding, causes
from gradlens.recording import Recording
from tests.analyses.trained import Batches, cnn, images, mlp, points, sequences, train, transformer

CODES = {"GL701", "GL702", "GL703", "GL704", "GL705", "GL706", "GL707"}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def judged(recording: Recording) -> dict[str, Finding]:
    return {finding.code: finding for finding in ANALYSIS.judge(ANALYSIS.compute([recording]))}


def flagged(recording: Recording) -> set[str]:
    return {code for code, finding in judged(recording).items() if finding.status in ("warn", "fail")}


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))


def changed(
    of: Batches, x: Callable[[Tensor], Tensor] = lambda x: x, y: Callable[[Tensor], Tensor] = lambda y: y
) -> Batches:
    return lambda step: (x(of(step)[0]), y(of(step)[1]))


def entropy(**settings: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda z, y: F.cross_entropy(z.flatten(0, -2), y.flatten(), **settings)


def bits(step: int) -> tuple[Tensor, Tensor]:
    x, y = points()(step)
    return x, (y[:, None] > 1).float()


def shuffled(step: int) -> tuple[Tensor, Tensor]:
    x, y = points()(step)
    return x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(step))]


HEALTHY: dict[str, Callable[[], Recording]] = {
    "mlp, Adam": lambda: train(mlp(), points(), steps=120),
    "mlp, SGD": lambda: train(mlp(), points(), "SGD", 0.1),
    "cnn": lambda: train(cnn(), images(), steps=40),
    "transformer": lambda: train(transformer(), sequences(), lr=3e-3, steps=30),
    "learned by heart": lambda: train(mlp(), lambda step: points()(0), steps=150),
    "log-probabilities": lambda: train(
        nn.Sequential(plain(), nn.LogSoftmax(1)), points(), loss_fn=lambda z, y: F.nll_loss(z, y)
    ),
    "log-softmax twice": lambda: train(nn.Sequential(plain(), nn.LogSoftmax(1)), points()),
    "class weights": lambda: train(plain(), points(), loss_fn=entropy(weight=torch.arange(1.0, 6))),
    "smoothed labels": lambda: train(plain(), points(), loss_fn=entropy(label_smoothing=0.1)),
    "an eighth of a mean": lambda: train(plain(), points(), loss_fn=lambda z, y: entropy()(z, y) / 8),
    "binary": lambda: train(
        nn.Sequential(nn.Linear(16, 1)), bits, lr=0.1, steps=120, loss_fn=F.binary_cross_entropy_with_logits
    ),
    "regression": lambda: train(nn.Linear(16, 1), bits, "SGD", 0.1, loss_fn=F.mse_loss),
    "one step": lambda: train(mlp(), points(), steps=1),
    "features of 0 and 1, few of them 1": lambda: train(
        plain(), changed(points(), lambda x: (x > 2.2).float()), steps=20
    ),
    "bytes, and a norm at the front": lambda: train(
        nn.Sequential(nn.BatchNorm1d(16), plain()), changed(points(), lambda x: 128 + 60 * x), steps=20
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_told_nothing(name: str) -> None:
    assert flagged(HEALTHY[name]()) == set()


def test_a_healthy_run_passes_what_can_be_asked() -> None:
    found = judged(train(mlp(), points(), steps=120))
    assert {code: finding.status for code, finding in found.items()} == dict.fromkeys(sorted(CODES), "pass")
    assert found["GL701"].value == pytest.approx(1.0, rel=1e-3)


def test_a_sum_over_the_batch_is_named_with_its_factor() -> None:
    recording = train(plain(), points(), "SGD", 1e-3, loss_fn=entropy(reduction="sum"), steps=20)
    found = judged(recording)["GL701"]
    assert found.status == "warn"
    assert found.value == pytest.approx(32, rel=1e-3)
    assert "32" in found.claim
    assert flagged(recording) == {"GL701"}
    assert set(SYMPTOMS) <= set(found.explains)


def test_a_sum_over_few_rows_is_told_and_no_more() -> None:
    found = judged(train(plain(), points(batch=4), "SGD", 1e-2, loss_fn=entropy(reduction="sum"), steps=20))["GL701"]
    assert found.status == "pass"
    assert found.value == pytest.approx(4, rel=1e-3)


def test_a_sum_over_tokens_averaged_over_samples_is_told_from_one_over_all() -> None:
    def loss_fn(z: Tensor, y: Tensor) -> Tensor:
        return entropy(reduction="sum")(z, y) / len(y)

    found = judged(train(transformer(), sequences(), lr=1e-3, steps=10, loss_fn=loss_fn))["GL701"]
    assert found.status == "warn"
    assert "of each sample" in found.claim
    assert found.value == pytest.approx(12, rel=1e-2)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("net", [plain, mlp])
def test_softmax_twice_is_a_fact_whether_the_model_or_the_loss_takes_it(
    inside: bool, net: Callable[[], nn.Module]
) -> None:
    model = nn.Sequential(net(), nn.Softmax(1)) if inside else net()
    recording = train(model, points(), loss_fn=None if inside else lambda z, y: F.cross_entropy(z.softmax(1), y))
    found = judged(recording)["GL702"]
    assert found.status == "fail"
    assert ("probabilities already" in found.claim) == inside
    assert flagged(recording) == {"GL702"}


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_loss_that_is_climbed_fails(optimizer: str) -> None:
    recording = train(mlp(), points(), optimizer, 1e-2, sign=-1.0, steps=30)
    found = judged(recording)["GL703"]
    assert found.status == "fail"
    assert found.value == 1.0
    assert "rose" in found.claim


def test_a_likelihood_that_an_optimizer_maximizes_is_no_failure() -> None:
    recording = train(mlp(), points(), "Adam", 1e-2, sign=-1.0, steps=30, maximize=True)
    found = judged(recording)["GL703"]
    assert found.status == "warn"
    assert any("maximizes (innocent)" in cause for cause in found.causes)


@pytest.mark.parametrize("sick", ["shuffled labels", "constant input", "zeroed input"])
def test_labels_that_carry_nothing_are_named_with_both_numbers(sick: str) -> None:
    of: dict[str, Batches] = {
        "shuffled labels": shuffled,
        "constant input": changed(points(), torch.ones_like),
        "zeroed input": changed(points(), torch.zeros_like),
    }
    found = judged(train(mlp(), of[sick], lr=3e-3, steps=150))["GL704"]
    assert found.status == "warn"
    assert found.value == pytest.approx(1.0, abs=0.03)
    assert found.claim.count("1.5") >= 2  # nats


@pytest.mark.parametrize(
    ("of", "steps", "settings", "status"),
    [
        (shuffled, 60, {}, "inconclusive"),
        (shuffled, 150, {"lr": 1e-9}, "not applicable"),
    ],
    ids=["a short run", "weights that stand still"],
)
def test_where_labels_cannot_tell_nothing_is_claimed(
    of: Batches, steps: int, settings: dict[str, Any], status: str
) -> None:
    assert judged(train(mlp(), of, steps=steps, **settings))["GL704"].status == status


def test_labels_that_are_all_the_same_have_nothing_to_tell() -> None:
    found = judged(train(mlp(), changed(points(), y=torch.zeros_like), steps=150))["GL704"]
    assert found.status == "warn"
    assert "the same" in found.claim


@pytest.mark.parametrize(("told", "status"), [(True, "inconclusive"), (False, "warn")])
def test_of_a_large_vocabulary_few_labels_tell_what_is_stuck_and_not_what_is_learned(told: bool, status: str) -> None:
    weight = torch.randn(8, 400, generator=torch.Generator().manual_seed(7))

    def tokens(step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(32, 8, generator=generator), torch.randint(400, (32,), generator=generator)
        return x, (x @ weight).argmax(1) if told else y

    assert judged(train(nn.Linear(8, 400), tokens, lr=0.3, steps=110, updates=False))["GL704"].status == status


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (lambda x: (40 * x + 128).clamp(0, 255).round(), "root mean square of 13"),
        (lambda x: 1e-3 * x, "root mean square of"),
        (lambda x: 1.0 + 0.01 * x, "a mean of"),
        (torch.ones_like, "a mean of many deviations"),
    ],
    ids=["bytes", "tiny", "far from 0", "constant"],
)
def test_an_input_off_scale_is_named(x: Callable[[Tensor], Tensor], said: str) -> None:
    found = judged(train(plain(), changed(points(), x), lr=1e-3, steps=10))["GL705"]
    assert found.status == "warn"
    assert said in found.claim


def test_token_numbers_are_no_input_with_a_scale() -> None:
    assert "GL705" not in judged(train(transformer(), sequences(), steps=5))


def never(model: nn.Module, *, steps: int, zero_every: int = 0, to_none: bool = True, micro: int = 1) -> Recording:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with gradlens.attach(model, optimizer=optimizer, label="run") as lens:
        for step in range(steps):
            x, y = points()(step)
            if zero_every and step % zero_every == 0:
                optimizer.zero_grad(set_to_none=to_none)
            for part in range(micro):
                (entropy()(model(x[part::micro]), y[part::micro]) / micro).backward()
            optimizer.step()
    return lens.recording


def test_gradients_that_are_never_zeroed_are_a_fact() -> None:
    found = judged(never(mlp(), steps=20))["GL706"]
    assert found.status == "fail"
    assert "19 of 20" in found.claim
    assert judged(never(mlp(), steps=5))["GL706"].status == "inconclusive"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"zero_every": 1, "micro": 4}, "in all 20 steps"),
        ({"zero_every": 1, "to_none": False}, "in all 20 steps"),
        ({"zero_every": 4}, "in 15 of 20 steps"),
    ],
    ids=["micro-batches", "zeros in place", "kept across steps on purpose"],
)
def test_accumulation_and_zeros_in_place_are_no_fault(settings: dict[str, Any], said: str) -> None:
    found = judged(never(mlp(), steps=20, **settings))["GL706"]
    assert found.status == "pass"
    assert said in found.claim


def test_what_no_optimizer_holds_is_not_zeroed_and_that_is_told_of_these_parameters_alone() -> None:
    model = mlp()
    optimizer = torch.optim.SGD([p for name, p in model.named_parameters() if name[0] != "0"], lr=1e-3)
    with gradlens.attach(model, optimizer=optimizer, label="run") as lens:
        for step in range(20):
            x, y = points()(step)
            optimizer.zero_grad()
            entropy()(model(x), y).backward()
            optimizer.step()
    found = judged(lens.recording)["GL706"]
    assert (found.status, set(found.sites)) == ("fail", {"0.weight", "0.bias"})
    still = next(one for one in PARAMETERS.judge(PARAMETERS.compute([lens.recording])) if one.code == "GL405")
    assert [(cause.finding.code, len(cause.symptoms)) for cause in causes([found, still])] == [("GL405", 1)]


def test_whether_gradients_were_zeroed_is_left_open_where_no_pass_could_tell() -> None:
    steps = pd.DataFrame({"step": range(20), "loss": 1.0})
    audit = {"steps": 20, "setting": {"older": 0, "older_of": 0}}
    recording = Recording.from_tables({"kind": "attached", "label": "run", "audit": audit}, steps=steps)
    assert judged(recording)["GL706"].status == "not applicable"


def test_recordings_of_before_say_how_to_record_it() -> None:
    steps = pd.DataFrame({"step": [0, 1], "loss": [1.0, 2.0]})
    found = ANALYSIS.judge(ANALYSIS.compute([Recording.from_tables({"kind": "attached", "label": "old"}, steps=steps)]))
    assert [(finding.code, finding.status) for finding in found] == [("GL701", "not applicable")]
    assert found[0].remedies


def test_an_output_of_two_tensors_is_said_to_be_unread() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = plain()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.inside(x)
            return z, 2.0 * z

    found = judged(train(Two(), points(), steps=3, loss_fn=lambda out, y: F.cross_entropy(out[0], y)))
    assert found["GL701"].status == "not applicable"
    assert ".logits" in found["GL701"].claim
    assert found["GL705"].status == "pass"


def test_a_compiled_run_says_that_outputs_are_not_read() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    compiled = torch.compile(model, backend="eager")
    with gradlens.attach(model, optimizer=optimizer, label="run") as lens:
        for step in range(3):
            x, y = points()(step)
            optimizer.zero_grad()
            entropy()(compiled(x), y).backward()
            optimizer.step()
    found = judged(lens.recording)
    assert found["GL701"].status == "not applicable"
    assert "compiled" in found["GL701"].claim


def test_explanations_and_findings_have_numbers_in_the_place_of_limits() -> None:
    assert all("{" not in text for text in ANALYSIS.codes.values())
    found = judged(train(plain(), points(), "SGD", 1e-3, loss_fn=entropy(reduction="sum"), steps=12))
    assert all("{" not in f"{finding.threshold}{finding.expected}" for finding in found.values())


def test_a_label_that_the_model_rules_out_has_no_finite_loss_and_is_left_out() -> None:
    recording = train(mlp(), points(), steps=110, updates=False)
    outputs = recording.outputs
    outputs.loc[outputs["step"] % 8 == 0, "sampled_loss"] = float("inf")
    tables = {name: recording.table(name) for name in ("sites", "params", "steps")}
    found = judged(Recording.from_tables(recording.meta, **tables, outputs=outputs))
    assert found["GL704"].status == "pass"
    assert judged(Recording.from_tables(recording.meta, **tables, outputs=outputs[["step", "site"]])).keys() >= {
        "GL701"
    }


def test_inputs_that_become_others_are_told_with_their_step() -> None:
    def later(step: int) -> tuple[Tensor, Tensor]:
        x, y = points()(step)
        return (x * 50 if step >= 20 else x), y

    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    found = judged(train(model, later, lr=1e-3, steps=40))["GL705"]
    assert (found.status, found.onset) == ("warn", 20)
    assert "50.0" in found.claim or "50" in found.claim


@pytest.mark.parametrize(("divisor", "status"), [(1, "warn"), (16, "pass")])
def test_micro_batches_that_are_not_divided_by_their_number_are_a_sum(divisor: int, status: str) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with gradlens.attach(model, optimizer=optimizer, label="run") as lens:
        for step in range(5):
            optimizer.zero_grad()
            for micro in range(16):
                x, y = points(batch=8)(16 * step + micro)
                (nn.functional.cross_entropy(model(x), y) / divisor).backward()
            optimizer.step()
    found = judged(lens.recording)["GL701"]
    assert found.status == status
    assert ("16 micro-batches" in found.claim) == (status == "warn" or "micro-batches make up" in found.claim)
