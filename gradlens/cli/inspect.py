"""``gradlens inspect``: one model at initialization, norm by norm."""

import contextlib
import shlex
import sys
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gradlens.cli import completion, options, terminal
from gradlens.cli.probes import Probing, document, text
from gradlens.cli.state import state
from gradlens.errors import GradlensError, NothingFoundError
from gradlens.lab.operands import RunFolder, Variant, parse
from gradlens.lab.training.settings import Settings
from gradlens.text import columns

if TYPE_CHECKING:
    import pandas as pd

    from gradlens.lab.operands.subject import Subject
    from gradlens.probes.optimizers import OptimizerKind
    from gradlens.recording import Recording

#: Columns of the ``norms`` table that are shown, means over seeds and calls.
_SHOWN = ("recentering", "rescaling", "kept", "inv_sigma", "grad_output_norm", "grad_input_norm")


@click.command("inspect")
@click.argument("model", metavar="MODEL", shell_complete=completion.variant)
@options.seeds
@options.size
@options.batches
@options.seed
@options.device
@options.users_model
@click.option("--probes", is_flag=True, help="Probe the learning rate, the curvature and the blocks too.")
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "sgd", "momentum"]),
    default="adam",
    show_default=True,
    help="With --probes: the optimizer that is planned.",
)
@click.option("--lr", type=float, help="With --probes: the learning rate that is planned.")
@options.out("Run folder for the recording.  [default: not kept]")
@click.option("--all", "whole", is_flag=True, help="Print every norm and every check, not only a screen of them.")
@options.as_json
@options.verbosity
def command(
    model: str,
    arguments: tuple[str, ...],
    batch: str | None,
    out: Path | None,
    whole: bool,
    as_json: bool,
    probes: bool,
    optimizer: "OptimizerKind",
    lr: float | None,
    **settings: Any,
) -> None:
    """Audit MODEL at initialization: its norms, where they stand, what each does to the gradient, and what is found.

    MODEL is pkg.mod:build or file.py:build, a function that returns a module, (module, batch) or
    (module, batch, loss_fn), where loss_fn(output, batch) takes what the module returned and what its forward
    took, and returns one number; or a variant of the zoo; or a recording; or a model of Hugging Face
    transformers: hf:bert (any model type), hf:FOLDER or hf:config.json. A type has the library's default
    sizes; -m num_hidden_layers=4 -m hidden_size=128 and the like set them. Nothing is downloaded.

    With --probes the model of the first seed is measured beyond its hooks: which learning rate it can take and
    whether it needs a warm-up, its curvature, and what its blocks do. Copies of it are trained for a few steps.
    """
    if not probes and (lr is not None or optimizer != "adam"):
        raise GradlensError("--lr and --optimizer say what --probes is to look for. Add --probes, or leave them out.")
    probing: Probing | None = None
    chosen = Settings(init_only=True, **settings)
    with contextlib.redirect_stdout(sys.stderr), terminal.Display() as display:
        operands = parse([model], arguments, batch)
        if len(operands) > 1:
            raise GradlensError(f"inspect takes one model; {model} holds {len(operands)} recordings. Name one of them.")
        if isinstance(operands[0], RunFolder):
            if probes:
                raise GradlensError(f"--probes needs a model to run; {model} is a recording. Name the model.")
            from gradlens.recording import load

            recording = load(operands[0].path)
        else:
            from gradlens.lab.tasks import TASKS

            subject = operands[0].subject(TASKS[chosen.task](), chosen)
            if probes:
                progress = lambda done, total: display.running("probes", done, total)  # noqa: E731
                probing = Probing(subject, chosen.seed, optimizer, lr, progress)
            recording = _measured(subject, chosen, out, probing, display, by_design=isinstance(operands[0], Variant))
        display.clear()
    from gradlens.analysis import compare
    from gradlens.reporting import findings_text, verdict_text

    found = compare([recording])
    sites, audit = norms_by_site(recording), dict(recording.meta.get("audit") or {})
    if as_json:
        facts = {name: recording.meta.get(name) for name in ("label", "model", "loss", "seeds")}
        facts["findings"] = [finding.to_dict() for finding in found.findings]
        read = {} if probing is None else document(probing.found)
        terminal.result_json({**facts, "sites": sites.to_dict("records"), "audit": audit, **read})
    else:
        whole = whole or state().verbose
        findings = findings_text(found, width=terminal.width(), verbose=state().verbose, short=not whole)
        told = verdict_text(found, width=terminal.width())
        rest = "\n\n".join([_audited(audit), *filter(None, [told]), f"Findings\n{findings}"])
        parts = [_title(recording, sites), *_table(sites, len(sites) if whole else _room(rest)), rest]
        if not whole:
            parts = [_cut("\n\n".join(parts))]
        if probing is not None:
            answer = probing.found.answer
            trains = subject.trainable and optimizer == "adam"  # which compare trains with
            rate = min(lr or inf, answer.lr) if answer and trains else inf
            parts.append(text(probing.found, _comparing(model, arguments, chosen, rate) if rate < inf else ""))
        terminal.result("\n\n".join(parts))


def _measured(
    subject: "Subject", chosen: Settings, out: Path | None, probing: Probing | None, display: terminal.Display, *,
    by_design: bool,
) -> "Recording":  # fmt: skip
    """Return the recording of a subject at initialization.

    Raises:
        NothingFoundError: it has no normalization; of one that has none by design the message says so.
    """
    from gradlens.lab.runs.measurement import measure

    seeds = lambda done, total: display.running(subject.label, done, total)  # noqa: E731
    try:
        return measure(subject, chosen, out, seeds, without_norms=probing is not None, probe=probing)
    except NothingFoundError:
        if not by_design:
            raise
        raise NothingFoundError(
            f"inspect looks at normalizations; {subject.label} has none by design. Compare it with a variant "
            f"that has some (gradlens compare pre-ln {subject.label}), or measure it with --probes."
        ) from None


def _comparing(model: str, arguments: tuple[str, ...], chosen: Settings, lr: float) -> str:
    """Return the command that trains the same model with and without warm-up."""
    usual = Settings()
    words = ["gradlens", "compare", model, "--lr", f"{lr:.2g}"]
    for name in ("task", "layers", "width", "heads", "batch_size", "length", "seed", "device"):
        if getattr(chosen, name) != getattr(usual, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(chosen, name))]
    return shlex.join([*words, *(word for pair in arguments for word in ("-m", pair))])


def norms_by_site(recording: "Recording") -> "pd.DataFrame":
    """Return one row a norm: where it stands, and the means of what it does over seeds and calls."""
    sites, norms = recording.sites, recording.norms
    means = norms.groupby("site")[list(_SHOWN)].mean()
    where = sites[sites["kind"] == "norm"].sort_values("order")
    return where[["site", "norm", "placement", "block", "width"]].join(means, on="site").reset_index(drop=True)


def _title(recording: "Recording", sites: "pd.DataFrame") -> str:
    from gradlens.reporting.numbers import count

    model = recording.meta.get("model") or {}
    steps = f"{len(recording.steps)} {'seeds' if recording.meta.get('kind') == 'init' else 'steps'}"
    loss = recording.meta.get("loss")
    facts = [
        steps,
        f"{count(model.get('parameters'))} parameters",
        f"{len(sites)} norm{'s' if len(sites) != 1 else ''}",
        f"loss: {loss}" if loss else "",
    ]
    return f"{recording.label}: {', '.join(filter(None, facts))}"


def _table(sites: "pd.DataFrame", most: int) -> list[str]:
    """Return the table of norms, the middle of a long one left out; nothing where there is none."""
    from gradlens.reporting.numbers import number

    if sites.empty:
        return []
    heads = [str(column).removesuffix("_norm").replace("_", " ") for column in sites.columns]
    rows = [[number(value) for value in row] for row in sites.itertuples(index=False)]
    if (left_out := len(rows) - most) > 0:
        first = most - most // 2
        rows[first : first + left_out] = [[f"... {left_out} more: --all", *[""] * (len(heads) - 1)]]
    return [columns([heads, *rows], right=range(3, len(heads)))]


def _audited(audit: dict[str, Any]) -> str:
    return "\n".join(["Audit", *(f"- {problem}" for problem in audit.get("problems") or ["Nothing was missed."])])


def _room(rest: str) -> int:
    """Return the norms that a screen has room for beside the rest: eight at least, with what stands around them."""
    around = 7  # title, heads, what is left out, blank lines, and the prompt below
    return max(8, terminal.height() - around - rest.count("\n"))


def _cut(text: str) -> str:
    """Keep text to a screen."""
    lines, most = text.split("\n"), terminal.height() - 1
    left_out = len(lines) - most + 1
    return text if left_out <= 1 else "\n".join([*lines[: most - 1], f"... {left_out} lines more: --all"])
