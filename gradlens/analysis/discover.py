"""Finding the analyses: packages announce a tuple of them in the entry-point group ``gradlens.analyses``."""

from importlib.metadata import EntryPoint, entry_points

from gradlens.analysis.contract import Analysis
from gradlens.errors import GradlensError

GROUP = "gradlens.analyses"


def discover() -> tuple[Analysis, ...]:
    """Load every announced analysis: the built-in ones first, then other packages' by name.

    Returns:
        The analyses in reading order.

    Raises:
        GradlensError: a plug-in cannot be imported, is no tuple of analyses, or takes a name already taken;
            or nothing is announced at all, because gradlens is on the path without being installed.
    """
    entries = sorted(entry_points(group=GROUP), key=lambda entry: (entry.name != "built-in", entry.name))
    if not entries:
        raise GradlensError(
            f"Analyses are found through the entry points {GROUP!r}, and no installed package announces any. "
            "gradlens itself must be installed, not only importable: run `pip install -e .` in its checkout."
        )
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


def _load(entry: EntryPoint) -> tuple[Analysis, ...]:
    """Import one entry and check that it is a tuple of analyses."""
    try:
        value = entry.load()
    except Exception as error:  # whatever a foreign module raises while it is imported
        raise GradlensError(
            f"The analyses of {_origin(entry)} cannot be loaded: {type(error).__name__}: {error}. "
            "Repair or uninstall that package."
        ) from error
    if not isinstance(value, tuple) or not all(isinstance(a, Analysis) for a in value):
        raise GradlensError(
            f"{_origin(entry)} must name a tuple of gradlens.analysis.Analysis; got {value!r:.200}. "
            "Repair or uninstall that package."
        )
    return value


def _origin(entry: EntryPoint) -> str:
    """Say where an entry comes from, so that a reader knows what to repair."""
    package = f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
    return f"plug-in {entry.name!r} ({entry.value}){package}"
