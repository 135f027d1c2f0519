"""Text fit to be printed: in a terminal, in XML, by a typesetter."""

import io
import re
from collections.abc import Collection, Sequence
from unicodedata import category

#: What has no sign in a terminal, XML or a font: control characters, surrogates, unassigned, private.
_NO_SIGN = {"Cc", "Cn", "Co", "Cs", "Zl", "Zp"}
#: Reorders what stands around it on a terminal; joiners inside of emoji and words stay.
_REORDERS = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]")


def printable(text: str) -> str:
    """Return text on one line, in its own order, with a replacement character for what has no sign."""
    if text.isascii() and text.isprintable():
        return text
    text = _REORDERS.sub("", text)
    return "".join("\N{REPLACEMENT CHARACTER}" if category(sign) in _NO_SIGN else sign for sign in text)


def printable_lines(text: str) -> str:
    """Return text of several lines, each printable."""
    return "\n".join(map(printable, text.expandtabs(4).replace("\r\n", "\n").split("\n")))


def columns(rows: Sequence[Sequence[str]], *, right: Collection[int] = (), indent: int = 0, width: int = 10_000) -> str:
    """Lay out rows of texts in columns, without colour or frame.

    Args:
        rows: the first may be heads.
        right: indices of the columns that are flush right.
        indent: signs in front of each line.
        width: of a line, into which long cells are wrapped; by default wider than any.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for i in range(len(rows[0]) if rows else 0):
        table.add_column(justify="right" if i in right else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=width, force_terminal=False, force_jupyter=False)
    with console.capture() as printed:
        console.print(Padding(table, (0, 0, 0, indent)))
    return "\n".join(line.rstrip() for line in printed.get().removesuffix("\n").split("\n"))
