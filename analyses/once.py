"""What several questions ask of a recording is worked out once."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

from gradlens.recording import Recording

Answer = TypeVar("Answer")


def once(function: Callable[[Recording], Answer]) -> Callable[[Recording], Answer]:
    """Keep what a function returns of a recording for as long as that lives; nobody may change it."""
    known: WeakKeyDictionary[Recording, Answer] = WeakKeyDictionary()

    @wraps(function)
    def asked(recording: Recording) -> Answer:
        if recording not in known:
            known[recording] = function(recording)
        return known[recording]

    return asked
