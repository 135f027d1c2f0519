"""Fixtures of the integrations' tests. Nothing that they import tells anybody of it, or keeps anything at home."""

import atexit
import os
import shutil
import tempfile

import pytest

import gradlens
from gradlens.integrations import session

for _name in ("DO_NOT_TRACK", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp()  # which is read when it is imported
atexit.register(shutil.rmtree, os.environ["TRACKIO_DIR"], ignore_errors=True)


@pytest.fixture
def unjudged(monkeypatch):
    """Ask no question at the end of a training, which takes longer than the trainings here."""
    monkeypatch.setattr(session, "compare", lambda recordings: gradlens.compare(recordings, analyses=()))
