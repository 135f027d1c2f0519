"""What is recorded goes to a tracker too: which numbers, under which names, and what becomes of one that fails."""

import pytest
import torch

import gradlens
from gradlens.errors import GradlensError
from tests.lens.networks import Thrice, stack
from tests.lens.training_loop import train

NAME = "gradlens/norms/2/rescaling"


class Kept(dict):
    """A tracker that keeps numbers by name and step."""

    def log(self, numbers, *, step):
        for name, value in numbers.items():
            assert (name, step) not in self, "sent twice"
            self[name, step] = value


def sent(send, steps=4, **options) -> gradlens.Recording:
    model = stack()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with gradlens.attach(model, send=send, **options) as lens:
        train(model, steps=steps, lens=lens, optimizer=optimizer, lr=1e-2, tokens=7.0)
    return lens.recording


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("folder", [False, True])
def test_a_tracker_gets_the_columns_of_recorded_steps_by_name(every, folder, tmp_path):
    kept = Kept()
    recording = sent((kept, ""), every=every, out=tmp_path / "run" if folder else None)
    tables = {"norms": "site", "params": "name", "steps": None}
    found = 0
    for table, key in tables.items():
        for row in recording.table(table).to_dict("records"):
            for column, value in row.items():
                name = "/".join(filter(None, ("gradlens", table, key and row[key], column)))
                if isinstance(value, float) and value == value:
                    assert kept.get((name, row["step"])) == pytest.approx(value, rel=1e-12), name
                    found += 1
    assert found > 100 // every
    assert kept["gradlens/steps/tokens", 0] == 7.0


def test_what_is_sent_is_chosen():
    kept, default = Kept(), Kept()
    sent((kept, r"norms/1\.\d\.norm/(kept|rescaling)$"))
    assert {name for name, _ in kept} == {
        f"gradlens/norms/1.{i}.norm/{share}" for i in (0, 1, 2) for share in ("kept", "rescaling")
    }
    sent(default)
    assert len({name for name, _ in default}) < 60, "a model has many parameters"
    assert {"gradlens/steps/grad_norm", NAME, "gradlens/params/2.weight/grad_norm"} <= {name for name, _ in default}


def test_calls_of_one_norm_have_names_of_their_own():
    kept = Kept()
    model = stack(Thrice, blocks=1)
    with gradlens.attach(model, send=kept) as lens:
        train(model, steps=1, lens=lens)
    assert {("gradlens/norms/1.0.norm/rescaling", 0), ("gradlens/norms/1.0.norm/call2/rescaling", 0)} <= kept.keys()


def test_a_tracker_that_fails_ends_neither_training_nor_recording(capsys):
    class Full:
        def log(self, numbers, *, step):
            raise OSError("quota")

    recording = sent(Full())
    assert recording.steps["step"].tolist() == [0, 1, 2, 3]
    assert capsys.readouterr().err.count("nothing more is sent from step 0 on: the tracker failed: OSError: quota") == 1
    with pytest.raises(OSError, match="quota"):
        sent(Full(), strict=True)


@pytest.mark.parametrize("send", [object(), "wandb", (Kept(), "("), (Kept(), 3)])
def test_what_is_no_tracker_is_refused_before_anything_is_written(send, tmp_path):
    with pytest.raises(GradlensError, match="send"):
        gradlens.attach(stack(), out=tmp_path / "run", send=send)
    assert not (tmp_path / "run").exists()
