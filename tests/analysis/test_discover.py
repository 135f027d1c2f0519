from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from gradlens.analysis import Analysis
from gradlens.analysis import discover as module
from gradlens.analysis.discover import GROUP, discover
from gradlens.errors import GradlensError


def analysis(name: str) -> Analysis:
    nothing: Any = lambda *_: None  # noqa: E731
    return Analysis(
        name=name, title="", question="", reading="", needs={}, compute=nothing, plot=nothing, judge=nothing
    )


class Entry(SimpleNamespace):
    """Stands in for an installed package's entry point."""

    def load(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def announce(monkeypatch: pytest.MonkeyPatch, **found: Any) -> None:
    dist = SimpleNamespace(name="somebody", version="1.2")
    entries = [Entry(name=name.replace("_", "-"), value=f"{name}:X", dist=dist, found=f) for name, f in found.items()]
    monkeypatch.setattr(module, "entry_points", lambda group: entries if group == GROUP else [])


def test_the_built_in_analyses_come_first_and_the_others_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, zoo=(analysis("z"),), alpha=(analysis("a"),), built_in=(analysis("y"), analysis("x")))
    assert [a.name for a in discover()] == ["y", "x", "a", "z"]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (ModuleNotFoundError("No module named 'absent'"), "ModuleNotFoundError: No module named 'absent'"),
        (SyntaxError("bad"), "SyntaxError"),
        ([1, 2], "must name a tuple"),
        ((analysis("fine"), "not one"), "must name a tuple"),
        ((analysis("../escape"),), "snake_case"),
    ],
)
def test_a_broken_plug_in_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, found: Any, says: str) -> None:
    announce(monkeypatch, broken=found)
    with pytest.raises(GradlensError) as caught:
        discover()
    for part in ("'broken' (broken:X) of somebody 1.2", says, "ninstall"):
        assert part in str(caught.value)


def test_two_plug_ins_may_not_use_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, one=(analysis("same"),), two=(analysis("same"),))
    with pytest.raises(GradlensError, match=r"'one'.*'two'.*'same'"):
        discover()


def test_a_program_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch)
    with pytest.raises(GradlensError, match="pip install"):
        discover()


def test_the_entry_points_of_the_installed_packages_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "no_such_module_anywhere:ANALYSES", GROUP)
    monkeypatch.setattr(module, "entry_points", lambda group: [entry])
    with pytest.raises(GradlensError, match="no_such_module_anywhere"):
        discover()
