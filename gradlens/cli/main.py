"""The program ``gradlens``: finds the command, and turns what goes wrong into a message and an exit code.

Commands are imported when they are called, so that ``gradlens --help`` starts as fast as Python and click do.
"""

import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from gradlens import __version__
from gradlens.cli.state import State
from gradlens.errors import GradlensError, UnknownNameError
from gradlens.text import printable_lines

#: Command to the line that says what it does, in the order of a first encounter. It lives in the module
#: ``gradlens.cli.<name>`` under the name ``command``.
COMMANDS = {
    "compare": "Measure models side by side, train them, and write a report.",
    "inspect": "Audit one model at initialization.",
    "train": "Record one training run.",
    "reproduce": "Run a paper's experiment again, and test its claims.",
    "report": "Write a PDF on recorded runs, or a page for a browser.",
    "diagnose": "Print what is found in recorded runs; the exit code is for CI.",
    "watch": "Show runs while they are written.",
    "data": "Show the real data sets, and fetch them.",
    "list": "Show what there is: variants, tasks, analyses, studies.",
    "explain": "Tell what a finding means.",
}

USAGE, INTERNAL, INTERRUPTED = 2, 3, 130


class Program(click.Group):
    """The group of all commands; errors are caught here, once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"gradlens.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called, or say which have a near name."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UnknownNameError("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(  # type: ignore[override]  # it always ends the process
        self, args: Sequence[str] | None = None, prog_name: str | None = "gradlens", **extra: Any
    ) -> NoReturn:
        """Run the program and end the process with an exit code."""
        # Before torch is loaded: its threads shall sleep, not spin, while they wait for each other. That makes a
        # small training step up to 1.7 times slower on two idle cores, where spinning made it up to sixty times
        # slower on cores that another process used too.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        state = State(arguments=tuple(sys.argv[1:] if args is None else args))
        try:
            with warnings.catch_warnings():
                # What libraries say about themselves; what matters to a user is an error or a finding.
                warnings.simplefilter("ignore")
                code = super().main(args, prog_name, **{**extra, "standalone_mode": False, "obj": state})
        except GradlensError as error:
            _say(f"Error: {error}", error, state)
            code = error.exit_code
        except click.ClickException as error:
            error.show()
            code = USAGE
        except (click.Abort, KeyboardInterrupt):
            _say(f"Interrupted. {state.when_interrupted}".strip())
            code = INTERRUPTED
        except Exception as error:
            _say(f"Error: {_internal(error)}", error, state)
            code = INTERNAL
        sys.exit(code if isinstance(code, int) else 0)


def _say(message: str, error: BaseException | None = None, state: State | None = None) -> None:
    """Print a message on stderr, and with ``-v`` the traceback."""
    click.echo(printable_lines(message), err=True)
    if error is not None and state is not None and state.verbose:
        click.echo(printable_lines("".join(traceback.format_exception(error))), err=True)


def _internal(error: Exception) -> str:
    """Say that gradlens is at fault, and where the traceback was put."""
    text = "".join(traceback.format_exception(error))
    first = (str(error).splitlines() or [""])[0]
    said = f"gradlens failed where it should not: {type(error).__name__}: {first}."
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="gradlens-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
    except OSError:
        return f"{said} Its traceback could not be written anywhere; run the same with -v to see it."
    return f"{said} This is a bug: please report it with the traceback in {file.name}."


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gradlens")
def main() -> None:
    """See what normalization layers do to the gradients of any PyTorch model.

    Start with: gradlens compare pre-ln post-ln
    """
