"""Trackers without ``log(numbers, step=)``, made into ones that have it, and the report as an artifact of any.

Runs of wandb and of trackio, and the module trackio, are given to ``gradlens.attach(..., send=...)`` as they are.
"""

import inspect
import tempfile
from pathlib import Path
from typing import Any

import gradlens
from gradlens.errors import GradlensError
from gradlens.recording import Recording


class TensorBoard:
    """A ``SummaryWriter`` of ``torch.utils.tensorboard`` or tensorboardX.

    Args:
        writer: what scalars are added to.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, numbers: dict[str, float], *, step: int) -> None:
        """Add the numbers of one step."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)


class MLflow:
    """The module ``mlflow``, whose active run gets the numbers, or an ``MlflowClient``'s like.

    Args:
        mlflow: has ``log_metrics`` and ``log_artifact``.
    """

    def __init__(self, mlflow: Any) -> None:
        self._mlflow = mlflow

    def log(self, numbers: dict[str, float], *, step: int) -> None:
        """Log the numbers of one step."""
        self._mlflow.log_metrics(numbers, step=step)

    def log_artifact(self, path: str) -> None:
        """Keep a file with the run."""
        self._mlflow.log_artifact(path)


class Wandb:
    """A run of wandb to which others log as well: the numbers have an axis of their own, ``gradlens/step``.

    wandb drops what is logged for an earlier step than its last; a trainer that counts logs, or tokens, is ahead soon.

    Args:
        run: what ``wandb.init`` returned.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        run.define_metric("gradlens/step")
        run.define_metric("gradlens/*", step_metric="gradlens/step")

    def log(self, numbers: dict[str, float], *, step: int) -> None:
        """Log the numbers of one step."""
        self._run.log({**numbers, "gradlens/step": step})

    def log_artifact(self, path: str, name: str, type: str) -> None:
        """Keep a file with the run."""
        self._run.log_artifact(path, name=name, type=type)


def send_report(recording: Recording, tracker: Any) -> None:
    """Write the report of a recording, and keep it with the tracker's run.

    Args:
        recording: of a training.
        tracker: a run of wandb or trackio, or one of this module's; the run is not finished.

    Raises:
        GradlensError: it keeps no files.
    """
    keep = getattr(tracker, "log_artifact", None)
    if not callable(keep):
        raise GradlensError(f"A report is kept by trackers that have log_artifact; {type(tracker).__name__} has none.")
    named = {"name": "gradlens-report", "type": "report"} if "type" in inspect.signature(keep).parameters else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gradlens.pdf"
        gradlens.report([recording], path)
        keep(str(path), **named)
