"""What a data source is: a data set, the channel that brings it, and the files it consists of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gradlens.errors import GradlensError


class Brought(NamedTuple):
    """What a channel delivered.

    Attributes:
        version: of the package, as its channel names it.
        archives: file name to sha256 of what was downloaded, before anything was taken out of it.
    """

    version: str
    archives: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data set.

    Attributes:
        name: in ``SOURCES``.
        what: the data, in one line.
        licence: of the data.
        size: of what is kept, in words.
        channel: ``"pip"``, ``"apt"`` or ``"folder"``.
        package: what the channel calls it.
        patterns: globs below the folder; together they match its data files and nothing else.
        needs: what a folder of it holds, for messages.
        bring: downloads it into an empty folder; None where it comes from a folder only.
        sha256: data file to the checksum that a release which never changes must have.
    """

    name: str
    what: str
    licence: str
    size: str
    channel: str
    package: str
    patterns: tuple[str, ...]
    needs: str
    bring: Callable[[Path], Brought] | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command that brings it."""
        return f"gradlens data fetch {self.name}" + ("" if self.bring else " --from FOLDER")

    def files(self, folder: Path) -> list[Path]:
        """Return the data files in a folder, relative to it and sorted.

        Raises:
            GradlensError: there is no such folder, or none of its files is one.
        """
        if not folder.is_dir():
            raise GradlensError(f"The data set {self.name!r} needs a folder; {folder} is none. Give {self.needs}.")
        found = {path for pattern in self.patterns for path in folder.glob(pattern) if path.is_file()}
        if not found:
            raise GradlensError(
                f"A folder of the data set {self.name!r} must hold {self.needs}; {folder} does not. "
                "Give the folder that directly holds them."
            )
        return sorted(path.relative_to(folder) for path in found)
