"""Options that several commands share, so that each has one name, one help text and one default."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gradlens.cli import completion
from gradlens.cli.state import state
from gradlens.errors import GradlensError
from gradlens.lab.training.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

_DEFAULTS = Settings()
COUNT = click.IntRange(min=1)


class Share(click.ParamType[float]):
    """A share, as ``5%`` or ``0.05``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return it as a number from 0 up."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
        except ValueError:
            share = math.nan
        if not 0 <= share < math.inf:
            self.fail(f"{value!r} is no share from 0 up; write 5% or 0.05.", param, ctx)
        return share


class Every(click.ParamType[int | str]):
    """A number of steps, or ``auto``."""

    name = "count|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return it as a number from 1 up, or as the word."""
        if value == "auto":
            return "auto"
        try:
            return int(COUNT.convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is neither a number from 1 up nor auto.", param, ctx)


def stacked(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return one decorator for several options, shown in the order given."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _setting(flag: str, kind: Any, text: str, **more: Any) -> Callable[[Command], Command]:
    """Return an option that sets one of the ``Settings``, with its default there."""
    name = flag.strip("-").replace("-", "_")
    return click.option(flag, type=kind, default=getattr(_DEFAULTS, name), show_default=True, help=text, **more)


def _said(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        setattr(state(), str(parameter.name), True)


reference = click.option(
    "--reference",
    metavar="RUN",
    type=click.Path(path_type=Path),
    default=None,
    help="A run that went well: what one should expect of the others. It is not judged itself.",
)
margin = click.option(
    "--margin",
    type=Share(),
    help="Of two runs, the share by which the second's loss may be higher, and gradient norm and re-scaling be "
    "another: 5% or 0.05. With it --fail-on asks for nothing else.",
)
same_weights = click.option(
    "--same-weights",
    is_flag=True,
    help="Hold two implementations of one model against each other: the second takes the first's weights and batch.",
)
verbosity = stacked(
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_said,
        help="Print results, where they are, and errors only.",
    ),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_said,
        help="Print more, tracebacks too.",
    ),
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
fail_on = click.option(
    "--fail-on", type=click.Choice(["fail", "warn"]), help="Exit with 1 where a finding is at least that bad."
)
device = _setting("--device", str, "Where to run: auto, cpu, cuda, mps.")
seed = _setting("--seed", click.IntRange(0, 2**31), "First seed; it decides weights, data order and dropout.")
seeds = _setting("--seeds", COUNT, "Models measured at initialization.")
size = stacked(
    _setting("--layers", COUNT, "Blocks of a zoo model."),
    _setting("--width", COUNT, "Length of a token's vector in a zoo model."),
    _setting("--heads", COUNT, "Attention heads of a zoo model."),
)
batches = stacked(
    _setting("--task", str, "What to train on; see `gradlens list`.", shell_complete=completion.task),
    _setting("--batch-size", COUNT, "Sequences in a batch."),
    _setting("--length", click.IntRange(min=2), "Tokens in a sequence."),
)
training = stacked(
    _setting("--steps", COUNT, "Optimizer steps of a training run."),
    _setting("--lr", float, "Highest learning rate."),
)
jobs = stacked(
    click.option("--jobs", type=COUNT, help="Runs at a time.  [default: one a core; 1 on an accelerator]"),
    click.option(
        "--executor",
        metavar="WHO",
        default="local",
        show_default=True,
        help="Who makes the runs: local, slurm, or dask=ADDRESS; all must see the folder.",
    ),
)
users_model = stacked(
    click.option(
        "-m",
        "arguments",
        multiple=True,
        metavar="KEY=VALUE",
        help="Keyword argument for your build function, or setting of a model hf:...",
    ),
    click.option(
        "--batch", metavar="PKG.MOD:FN", help="Function that returns a batch, where build returns none; for hf:... too."
    ),
)


def refuse_other(path: Path, flag: str, what: str, suffix: str, begins: bytes) -> None:
    """Protect a file that is no report of ours from a slip of the hand, and the reader from one of another name.

    Args:
        path: what is to be written.
        flag: the option that names it.
        what: the kind of file, such as "a PDF".
        suffix: how its name ends, in lower case.
        begins: how it begins, in lower case.

    Raises:
        GradlensError: the name ends otherwise, or there is something else.
    """
    if path.suffix.lower() != suffix:
        raise GradlensError(f"{flag} must name {what}; {path} does not end in {suffix}. Add it.")
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(begins)).lower() not in (begins, b""):
                raise GradlensError(
                    f"{flag} must name {what}; {path} is there and is something else. Choose another name."
                )


def _page(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None:
        refuse_other(value, "--html", "a page", ".html", b"<!doctype html>")
    return value


html = click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_page,
    help="Page for a browser to write, which needs no network; one that is there is replaced.",
)
runs = click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))


def out(text: str) -> Callable[[Command], Command]:
    """Return the option for where the result goes."""
    return click.option("--out", type=click.Path(path_type=Path), help=text)
