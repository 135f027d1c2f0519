"""Both ways of measuring: the native core's and torch's."""

import pytest

from gradlens.native import core


@pytest.fixture(params=["native", "torch"])
def measured_by(request, monkeypatch) -> str:
    """Run a test once with the native core, where it was compiled, and once with torch's operations."""
    if request.param == "torch":
        monkeypatch.setattr(core, "library", None)
    elif core.library is None:
        pytest.skip("the native core was not compiled")
    return request.param
