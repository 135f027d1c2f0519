"""``every="auto"``: what recording may cost is kept to, and what happens is seen in full."""

import random
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

import gradlens
from gradlens import GradlensError
from gradlens.lens.cadence import FIRST, Budget, cadence_of
from gradlens.lens.events import Recent
from gradlens.lens.laps import DeviceLaps, HostLaps, Lap
from tests.lens.networks import WIDTH, stack
from tests.lens.training_loop import train
from tests.recording.folders import without_digests

STEPS = 4000


class Told:
    """Laps that take as long as they are told to."""

    def __init__(self, seconds):
        self.seconds, self.count = seconds, 0

    def restart(self):
        pass

    def also(self, seconds):
        pass

    def lap(self, recorded, closely):
        self.count += 1
        return [Lap(recorded, closely, self.seconds(self.count, recorded, closely))]


def run(budget: Budget, steps: int = STEPS) -> list[tuple[bool, bool]]:
    """Run a training; return of each step whether it is recorded, and whether closely."""
    budget.begin(0)
    chosen = []
    for step in range(steps):
        chosen.append((budget.due(step), budget.closely(step)))
        budget.over(step, *chosen[-1], None)
    return chosen


@pytest.mark.parametrize("cost", [0.01, 0.02, 0.1])
@pytest.mark.parametrize("longer", [0.04, 0.3, 5.0])
def test_the_first_steps_are_all_recorded_and_then_as_many_as_the_budget_allows(cost, longer):
    """Bare steps drift and wait for data now and then; those that are read closely cost twice as much."""
    draw = random.Random(0)

    def seconds(step, recorded, closely):
        extra = (1 + longer * (1 + closely)) if recorded else 1.0
        return (1 + step / STEPS) * draw.gauss(1.0, 0.02) * extra + 30.0 * (draw.random() < 0.05)

    chosen = run(Budget(cost, Told(seconds)))
    assert all(recorded for recorded, _ in chosen[:FIRST])
    later = chosen[FIRST + 100 :]
    spent = sum(longer * (1 + closely) for recorded, closely in later if recorded) / len(later)
    assert 0.6 * min(cost, longer) < spent < 1.25 * cost


def test_a_restless_loss_does_not_cost_more_than_another():
    """Every twentieth is far beyond all before."""
    budget = Budget(0.02, Told(lambda step, recorded, closely: 1.0 + recorded * 0.3 * (1 + closely)))
    budget.begin(0)
    spent = []
    for step in range(STEPS):
        recorded, closely = budget.due(step), budget.closely(step)
        spent.append(recorded * 0.3 * (1 + closely))
        budget.over(step, recorded, closely, None)
        budget.loss(step, 10.0 ** (step / 100) if step % 20 == 0 else 1.0)
    assert sum(spent[FIRST + 100 :]) / (STEPS - FIRST - 100) < 1.1 * 0.02
    assert "times more" in budget.told()


def test_where_the_budget_allows_for_every_step_one_is_left_out_now_and_then_to_measure_by():
    chosen = run(Budget(0.02, Told(lambda step, recorded, closely: 1.0)))[FIRST + 100 :]
    assert 0.9 < sum(recorded for recorded, _ in chosen) / len(chosen) < 1


def test_what_a_training_slows_down_to_is_followed():
    """From the middle on a step takes ten times as long, and recording one as long as before."""
    bare = [1.0, 10.0]
    laps = Told(lambda step, recorded, closely: bare[step > STEPS // 2] + recorded * 0.39)
    chosen = [recorded for recorded, _ in run(Budget(0.02, laps))]
    before, after = chosen[STEPS // 4 : STEPS // 2], chosen[3 * STEPS // 4 :]
    assert sum(after) == pytest.approx(10 * sum(before), rel=0.15)


def test_seconds_in_which_a_step_is_written_late_are_its_own():
    laps = HostLaps()
    assert laps.lap(True, False) == []
    laps.also(1000.0)
    (lap,) = laps.lap(False, False)
    assert lap.recorded
    assert 1000.0 <= lap.seconds < 1001.0
    (lap,) = laps.lap(False, False)
    assert not lap.recorded
    assert lap.seconds < -999.0  # the thousand were not its own


class LateEvent:
    """Comes when two later ones have been asked for."""

    asked = 0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        LateEvent.asked += 1
        self.number = LateEvent.asked

    def query(self):
        return LateEvent.asked >= self.number + 2

    def elapsed_time(self, other):
        assert other.query()  # else it would wait
        return 1e3 * (other.number**2 - self.number**2)


def test_on_an_accelerator_the_times_come_later_and_nobody_waits_for_them(monkeypatch):
    device = SimpleNamespace(Event=LateEvent, current_stream=lambda device: "a stream")
    monkeypatch.setattr(torch, "get_device_module", lambda of: device)
    laps = DeviceLaps(torch.device("cuda"))
    found = [laps.lap(step % 2 == 0, False) for step in range(6)]
    assert [len(known) for known in found] == [0, 0, 1, 1, 1, 1]
    assert [lap for known in found for lap in known] == [
        Lap(step % 2 == 0, False, (step + 2) ** 2 - (step + 1) ** 2) for step in range(4)
    ]


def test_noise_stays_in_its_range_and_a_jump_leaves_it():
    draw = random.Random(0)
    recent = Recent()
    assert not any(recent.left_by(3.0 - step / 10_000 + draw.gauss(0.0, 0.1)) for step in range(10_000))
    assert recent.left_by(3.0)
    assert not recent.left_by(3.0)


def follow(*, steps=80, at=60, loss=None, before_step=None, **options):
    """Train with an automatic cadence that would record nothing after the first steps; return the table ``steps``."""
    model = stack(blocks=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    draw = torch.Generator().manual_seed(0)
    with gradlens.attach(model, every="auto", cost=1e-9, optimizer=optimizer, **options) as lens:
        for step in range(steps):
            x = torch.randn(4, 5, WIDTH, generator=draw)
            if before_step is not None and step == at:
                before_step(model, optimizer)
            optimizer.zero_grad()
            found = model(x).square().mean()
            found.backward()
            optimizer.step()
            lens.step(loss=loss(found.item()) if loss and step == at else found.item())
    return lens.recording.steps.set_index("step"), lens.audit()


def faster(model, optimizer):
    optimizer.param_groups[0]["lr"] *= 3


def freeze(model, optimizer):
    model[0].requires_grad_(False)


@pytest.mark.parametrize(
    ("reason", "happens"),
    [
        ("loss", {"loss": lambda loss: loss + 5.0}),
        ("nonfinite", {"loss": lambda loss: float("nan")}),
        ("lr", {"before_step": faster}),
        ("trained", {"before_step": freeze}),
    ],
)
def test_after_an_event_eight_steps_are_recorded_and_say_why(reason, happens):
    steps, audit = follow(**happens)
    assert steps.loc[61:68, "reason"].tolist() == [reason] * 8
    assert steps.index[steps["reason"].notna()].tolist() == [*range(61, 69)]
    assert "(step 60)" in audit.setting["cadence"]
    quiet, _ = follow()
    assert quiet["reason"].isna().all()
    assert len(quiet) < len(steps)


class Overflow:
    """A scaler that leaves one optimizer's step out, as torch's does: ``update`` gives it a new record."""

    def __init__(self, optimizer, at):
        self.optimizer, self.at, self.steps, self._scale = optimizer, at, 0, torch.tensor(4.0)
        self._per_optimizer_states = {id(optimizer): {}}

    def step(self):
        if self.steps != self.at:
            self.optimizer.step()
        self.steps += 1
        self._per_optimizer_states = {id(self.optimizer): {}}


def test_a_step_that_the_scaler_left_out_is_followed():
    model = stack(blocks=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scaler = Overflow(optimizer, at=60)
    with gradlens.attach(model, every="auto", cost=1e-9, optimizer=optimizer, scaler=scaler) as lens:
        for _ in range(80):
            model(torch.ones(2, WIDTH)).square().mean().backward()
            scaler.step()
    steps = lens.recording.steps.set_index("step")
    assert steps.index[steps["reason"] == "skipped"].tolist() == [*range(61, 69)]


def test_a_recorded_gradient_that_leaves_its_range_is_followed():
    """The step itself is recorded, for another reason; the loss is not told."""
    model = stack(blocks=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with gradlens.attach(model, every="auto", cost=1e-9, optimizer=optimizer) as lens:
        for step in range(60):
            optimizer.zero_grad()
            ((1e3 if step == 20 else 1.0) * model(torch.ones(2, WIDTH)).square().mean()).backward()
            optimizer.step()
    steps = lens.recording.steps.set_index("step")
    assert steps.index[steps["reason"] == "grad_norm"].tolist() == [*range(21, 29)]


def test_what_is_recorded_is_what_every_step_would_have_been_and_training_keeps_its_bits():
    losses, recordings = [], []
    for every in (1, "auto"):
        model = stack()
        with gradlens.attach(model, every=every) as lens:
            losses.append(train(model, steps=60, lens=lens))
        recordings.append(lens.recording)
    whole, chosen = recordings
    assert losses[0] == losses[1] == train(stack(), steps=60)
    for table in ("norms", "activations"):
        frame = whole.table(table)
        same = frame[frame["step"].isin(chosen.steps["step"])].reset_index(drop=True)
        assert same.equals(chosen.table(table))
    assert FIRST <= len(chosen.steps) < 60


def test_after_a_jump_back_the_first_steps_are_recorded_again(tmp_path):
    model = stack(blocks=1)
    with gradlens.attach(model, out=tmp_path / "run", every="auto", cost=1e-9) as lens:
        train(model, steps=60, lens=lens)
        lens.start_at(50)
        train(model, steps=30, lens=lens)
    recording = gradlens.load(tmp_path / "run")
    assert set(range(50, 80)) <= set(recording.steps["step"])
    assert recording.meta["every"] == "auto"
    assert "steps were recorded" in str(recording.meta["audit"]["setting"]["cadence"])


def test_several_processes_record_the_same_steps():
    own = [cadence_of("auto", 0.02, torch.device("cpu"), SimpleNamespace(size=2)) for _ in range(2)]
    for cadence in own:
        cadence.loss(20, float("nan"))  # which one of them may have alone
    assert [[cadence.due(step) for step in range(64)] for cadence in own] == [[s % 16 == 0 for s in range(64)]] * 2


def test_recordings_of_before_have_no_reasons(tmp_path):
    with gradlens.attach(stack(blocks=1), out=tmp_path / "run") as lens:
        lens.step(loss=1.0)
    without_digests(tmp_path / "run")
    file = tmp_path / "run" / "steps.parquet"
    pd.read_parquet(file).drop(columns="reason").to_parquet(file)
    reasons = gradlens.load(tmp_path / "run").steps["reason"]
    assert reasons.isna().all()
    assert reasons.dtype == "str"


def test_a_recording_that_is_thinned_says_what_follows_an_event_and_is_else_the_same(tmp_path):
    recordings = []
    for keep in ("all", "thinned"):
        model = stack(blocks=1)
        with gradlens.attach(model, out=tmp_path / keep, keep=keep, every=2) as lens:
            train(model, steps=60, lens=lens)
            lens.step(loss=float("nan"))
            train(model, steps=39, lens=lens)
        recordings.append(gradlens.load(tmp_path / keep))
    whole, thinned = recordings
    assert whole.norms.equals(thinned.norms)
    assert whole.steps["reason"].isna().all()
    reasons = thinned.steps.set_index("step")["reason"]
    assert reasons.index[reasons == "nonfinite"].tolist() == [*range(62, 77, 2)]
    assert thinned.meta["keep"] == "thinned"
    assert "thinned" not in thinned.meta  # there are too few steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "some"}, "'all' or 'thinned'; got 'some'"),
        ({"keep": "thinned"}, "Pass out="),
        ({"every": "often"}, "or 'auto'; got 'often'"),
        ({"every": "auto", "cost": 0.0}, "above 0; got 0.0"),
    ],
)
def test_a_cadence_that_cannot_be_is_refused(options, message):
    with pytest.raises(GradlensError, match=message):
        gradlens.attach(nn.LayerNorm(4), **options)
