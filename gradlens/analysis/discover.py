"""Finding the analyses: packages announce a tuple of them in the entry-point group ``gradlens.analyses``.

Those that are asked of a paper's reproduction stand apart, as mappings in the group ``gradlens.papers``.
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gradlens.analysis.contract import Analysis
from gradlens.errors import GradlensError, UnknownNameError

GROUP = "gradlens.analyses"
PAPERS = "gradlens.papers"


def discover() -> tuple[Analysis, ...]:
    """Load every announced analysis: the built-in ones first, then other packages' by name.

    Returns:
        The analyses in reading order.

    Raises:
        GradlensError: a plug-in cannot be imported, is no tuple of analyses, or takes a name already taken;
            or nothing is announced at all, because gradlens is on the path without being installed.
    """
    entries = _entries(GROUP)
    found: dict[str, tuple[Analysis, EntryPoint]] = {}
    for entry in entries:
        for analysis in _load(entry):
            if not analysis.name.isidentifier():
                raise GradlensError(
                    f"An analysis is named like its file, in snake_case; {_origin(entry)} has one named "
                    f"{analysis.name!r}. Rename it, or uninstall that package."
                )
            if analysis.name in found:
                raise GradlensError(
                    f"Analyses need different names; both {_origin(found[analysis.name][1])} and "
                    f"{_origin(entry)} have one named {analysis.name!r}. Rename one, or uninstall a package."
                )
            found[analysis.name] = (analysis, entry)
    return tuple(analysis for analysis, _ in found.values())


def of_paper(name: str) -> tuple[Analysis, ...]:
    """Load the questions that are asked of a paper's reproduction, in reading order.

    Args:
        name: of the paper's study.

    Raises:
        UnknownNameError: no package has any for it.
        GradlensError: a plug-in cannot be imported or is no mapping of names to tuples of analyses.
    """
    known = papers()
    if name not in known:
        raise UnknownNameError("reproduced paper", name, known)
    return known[name]


def papers() -> dict[str, tuple[Analysis, ...]]:
    """Load the questions of every paper, by the name of its study; where two packages have one, the first counts.

    Raises:
        GradlensError: as ``of_paper``.
    """
    found: dict[str, tuple[Analysis, ...]] = {}
    for entry in _entries(PAPERS):
        value = _imported(entry)
        if not isinstance(value, Mapping) or not all(_are_analyses(questions) for questions in value.values()):
            raise GradlensError(
                f"{_origin(entry)} must name a mapping of names to tuples of gradlens.analysis.Analysis; got "
                f"{value!r:.200}. Repair or uninstall that package."
            )
        found = {**value, **found}
    return found


def _entries(group: str) -> list[EntryPoint]:
    entries = sorted(entry_points(group=group), key=lambda entry: (entry.name != "built-in", entry.name))
    if not entries:
        raise GradlensError(
            f"Analyses are found through the entry points {group!r}, and no installed package announces any. "
            "gradlens itself must be installed, not only importable: run `pip install -e .` in its checkout."
        )
    return entries


def _load(entry: EntryPoint) -> tuple[Analysis, ...]:
    """Import one entry and check that it is a tuple of analyses."""
    value = _imported(entry)
    if not _are_analyses(value):
        raise GradlensError(
            f"{_origin(entry)} must name a tuple of gradlens.analysis.Analysis; got {value!r:.200}. "
            "Repair or uninstall that package."
        )
    return tuple(value)


def _imported(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # whatever a foreign module raises while it is imported
        raise GradlensError(
            f"The analyses of {_origin(entry)} cannot be loaded: {type(error).__name__}: {error}. "
            "Repair or uninstall that package."
        ) from error


def _are_analyses(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(analysis, Analysis) for analysis in value)


def _origin(entry: EntryPoint) -> str:
    """Say where an entry comes from, so that a reader knows what to repair."""
    package = f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
    return f"plug-in {entry.name!r} ({entry.value}){package}"
