"""Text fit to be printed: in a terminal, in XML, by a typesetter."""

import re
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
