"""Text of a folder, which may come from anywhere, fit to be printed."""

from typing import Any

import pandas as pd

from gradlens.text import printable, printable_lines


def all_printable(value: Any) -> Any:
    """Return a value of JSON with all its texts printable."""
    if isinstance(value, str):
        return printable_lines(value)
    if isinstance(value, dict):
        return {printable(key): all_printable(member) for key, member in value.items()}
    return [all_printable(member) for member in value] if isinstance(value, list) else value


def printable_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts and names of columns are printable."""
    changed = frame.copy(deep=False)
    for name, column in frame.select_dtypes(["string", "object"]).items():
        texts = [text for text in column.unique() if isinstance(text, str)]
        odd = {text: printable(text) for text in texts if printable(text) != text}
        if odd:
            changed[name] = column.replace(odd)
    return changed.rename(columns=printable)
