"""What the commands of one call share: how much to say, and what to say when it ends early."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import click


@dataclass
class State:
    """One call of the program.

    Attributes:
        arguments: as typed, without the program's name.
        quiet: print results and errors only.
        verbose: print more, tracebacks included.
        when_interrupted: what to say after Ctrl-C.
    """

    arguments: Sequence[str] = ()
    quiet: bool = False
    verbose: bool = False
    when_interrupted: str = ""

    @property
    def command(self) -> str:
        """The command line."""
        return shlex.join(["gradlens", *self.arguments])


def state() -> State:
    """Return the state of the running call."""
    found: State = click.get_current_context().find_root().ensure_object(State)
    return found
