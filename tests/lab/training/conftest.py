"""A model and settings small enough for a run in a tenth of a second; dropout, so that seeds matter."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from gradlens.lab.tasks.stdlib_source import StdlibSource
from gradlens.lab.training.config import TrainingConfig
from gradlens.lab.training.trainer import train
from gradlens.recording import Recording

SIZE = {"width": 16, "blocks": 2, "heads": 2, "dropout": 0.2}
SETTINGS = {"steps": 12, "batch_size": 2, "length": 16, "lr": 3e-3, "evaluate_every": 0, "device": "cpu"}


@dataclass
class Trial:
    """Runs of the small model; remembers the models it built."""

    task: Any
    models: list[nn.Module] = field(default_factory=list)

    def build(self, variant: str = "pre-ln") -> nn.Module:
        self.models.append(self.task.model(variant, **SIZE))
        return self.models[-1]

    def config(self, **settings: Any) -> TrainingConfig:
        return TrainingConfig(**SETTINGS | settings)

    def __call__(
        self,
        *,
        variant: str = "pre-ln",
        model_fn: Callable[[], nn.Module] | None = None,
        task: Any = None,
        out: Any = None,
        on_step: Any = None,
        label: str = "small",
        **settings: Any,
    ) -> Recording:
        build = model_fn or (lambda: self.build(variant))
        return train(
            build,
            task or self.task,
            self.config(**settings),
            out=out,
            label=label,
            meta={"variant": variant},
            on_step=on_step,
        )

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights that the last run ended with."""
        return dict(self.models[-1].state_dict())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost these small models more than they give, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def trial() -> Trial:
    return Trial(StdlibSource())
