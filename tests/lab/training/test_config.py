import json
import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest

from gradlens.errors import GradlensError
from gradlens.lab.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 2.5),
        ("steps", True),
        ("batch_size", 0),
        ("length", 1),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("warmup", -1),
        ("warmup", 201),
        ("decay", "cosine"),
        ("decay_from", 201),
        ("optimizer", "lion"),
        ("betas", (0.9, 1.0)),
        ("betas", (0.9,)),
        ("weight_decay", -0.1),
        ("momentum", float("inf")),
        ("accumulation", 0),
        ("clip", 0.0),
        ("seed", -1),
        ("every", 0),
        ("evaluate_every", -1),
        ("evaluation_batches", 0),
        ("checkpoint_every", -1),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_what_it_must_be_and_what_it_is(name, value):
    with pytest.raises(GradlensError) as error:
        TrainingConfig(**{name: value})
    assert f"'{name}' must be" in str(error.value)
    assert f"it is {value!r}" in str(error.value)
    default = TrainingConfig.__dataclass_fields__[name].default
    assert default is None or f"its default is {default!r}" in str(error.value)


def test_an_inverse_sqrt_decay_needs_a_step_to_start_from():
    with pytest.raises(GradlensError, match="decay_from"):
        TrainingConfig(decay="inverse-sqrt")
    assert TrainingConfig(decay="inverse-sqrt", warmup=10).decay_start == 10
    assert TrainingConfig(decay="inverse-sqrt", decay_from=10).decay_start == 10


def test_the_decay_cannot_start_within_the_warmup():
    with pytest.raises(GradlensError, match="decay_from"):
        TrainingConfig(warmup=10, decay_from=9)


def test_the_settings_survive_json_and_cannot_be_changed():
    config = TrainingConfig(betas=(0.8, 0.9), clip=1.0)
    plain = config.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert TrainingConfig(**plain | {"betas": tuple(plain["betas"])}) == config
    with pytest.raises(FrozenInstanceError):
        config.lr = 1.0


def test_settings_are_made_without_torch():
    code = "import sys, gradlens.lab.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
