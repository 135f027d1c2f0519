"""Fixtures of the integrations' tests."""

import pytest

import gradlens
from gradlens.integrations import session


@pytest.fixture
def unjudged(monkeypatch):
    """Ask no question at the end of a training, which takes longer than the trainings here."""
    monkeypatch.setattr(session, "compare", lambda recordings: gradlens.compare(recordings, analyses=()))
