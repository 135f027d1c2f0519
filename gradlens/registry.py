"""A table of names whose entries are imported only when one is asked for.

Listing what there is (``gradlens list``, shell completion, a misspelt name) therefore never imports torch.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from gradlens.errors import UnknownNameError


class Registry(Mapping[str, Any]):
    """Names to objects, by import path.

    Args:
        what: the noun for messages, such as ``"norm"``.
        entries: name to (``"package.module:attribute"``, one line that says what it is), in reading order.
    """

    def __init__(self, what: str, entries: Mapping[str, tuple[str, str]]) -> None:
        self.what = what
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        """Import and return the entry.

        Raises:
            UnknownNameError: no entry has this name; the message holds the near ones.
        """
        if name not in self._entries:
            raise UnknownNameError(self.what, name, self._entries)
        module, _, attribute = self._entries[name][0].partition(":")
        return getattr(import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def about(self, name: str) -> str:
        """Return the line that says what the entry is, without importing it."""
        return self._entries[name][1]
