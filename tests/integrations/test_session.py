"""What callbacks do with findings while a training runs, and what it costs."""

import pytest
import torch

import gradlens
from gradlens.errors import GradlensError
from gradlens.integrations import session as sessions
from gradlens.integrations.session import Session, checked
from tests.integrations.by_hand import Net, batches


class Run:
    """A training by hand in a session; its learning rate becomes absurd at one step."""

    def __init__(self, on_finding=None, bad_from=10**6, every=1, judges=True, out=None):
        torch.manual_seed(0)
        self.model, self.said, self.bad_from = Net(), [], bad_from
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-3)
        lens = gradlens.attach(self.model, optimizer=self.optimizer, every=every, out=out)
        self.session = Session(lens, self.said.append, on_finding, judges)
        self.steps = 0

    def train(self, steps):
        for batch in batches(4) * (steps // 4):
            if self.steps == self.bad_from:
                self.optimizer.param_groups[0]["lr"] = 100.0
            self.optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])
            loss.backward()
            self.optimizer.step()
            self.steps += 1
            self.session.step(loss=loss)


def test_a_function_is_told_each_cause_once_soon_after_it_shows(monkeypatch):
    monkeypatch.setattr(sessions, "_PAUSE", 0)
    told = []
    run = Run(lambda finding: told.append((finding.code, finding.status, run.steps)), bad_from=40)
    run.train(80)
    assert told
    assert 40 < told[0][2] <= 70
    run.session.end()
    codes = [code for code, _, _ in told]
    assert len(codes) == len(set(codes))
    assert {status for _, status, _ in told} <= {"warn", "fail"}


def test_of_a_healthy_training_nobody_is_told_at_any_step(monkeypatch):
    monkeypatch.setattr(sessions, "_PAUSE", 0)
    run = Run("raise")
    run.train(80)
    run.session.end()
    assert run.said == [said for said in run.said if "Nothing asks for a look" in said]
    assert len(run.said) == 1


def test_a_finding_ends_the_training_where_that_was_asked_for(monkeypatch):
    monkeypatch.setattr(sessions, "_PAUSE", 0)
    run = Run("raise", bad_from=20)
    with pytest.raises(GradlensError, match=r"\(GL\d+\)$"):
        run.train(80)
    assert 32 < run.steps < 80


def test_the_log_gets_findings_and_at_the_end_the_verdict(monkeypatch, tmp_path):
    monkeypatch.setattr(sessions, "_PAUSE", 0)
    run = Run("log", bad_from=20, out=tmp_path / "run")
    run.train(52)
    before = list(run.said)
    assert before
    run.session.end()
    assert len(run.said) == len(before) + 1
    assert run.said[-1].endswith(f"gradlens report {tmp_path / 'run'}")


def test_looks_take_at_most_a_fiftieth_of_the_time(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock, looks = Clock(), []

    def compare(recordings):
        looks.append(clock.now)
        clock.now += 0.5 * len(looks)  # a longer recording takes longer
        return gradlens.compare(recordings, analyses=())

    monkeypatch.setattr(sessions, "compare", compare)
    monkeypatch.setattr(sessions, "time", clock)
    run = Run("log")
    for _ in range(40):
        run.train(4)
        clock.now += 4.0
    assert looks == [32.0, 60.5, 113.5]
    assert sum(0.5 * (index + 1) for index in range(len(looks))) <= 0.02 * clock.now


def test_a_recording_that_cannot_be_judged_ends_no_training(monkeypatch):
    def compare(recordings):
        raise ValueError("of a plug-in")

    monkeypatch.setattr(sessions, "compare", compare)
    monkeypatch.setattr(sessions, "_PAUSE", 0)
    run = Run("raise", bad_from=20)
    run.train(80)
    assert len(run.said) == 1
    assert "cannot be judged: ValueError: of a plug-in" in run.said[0]


def test_a_process_that_does_not_judge_is_silent(monkeypatch):
    run = Run("raise", bad_from=20, judges=False)
    run.train(60)
    run.session.end()
    assert run.said == []


@pytest.mark.parametrize("wrong", ["warn", 3, ["log"]])
def test_what_else_is_asked_for_is_refused(wrong):
    with pytest.raises(GradlensError, match="on_finding must be"):
        checked(wrong)
