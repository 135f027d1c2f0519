"""What the lens saw, and what it could not: nothing that was missed stays silent."""

from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The state of a lens after its first recorded step.

    Attributes:
        norms: paths of the normalizations that were found.
        fired: those that ran in a recorded step.
        without_grad_output: those that ran, but whose gradient never arrived.
        without_grad_input: those whose input needs no gradient: rescaling and kept are missing there.
        silent: norms that were found and never ran.
        without_graph: those that ran under no_grad, outside of any checkpoint: such calls are not recorded.
        transformed: those that ran inside a transform of torch.func other than grad, or in forward mode.
        functions_recorded: whether normalizations that run as functions are recorded.
        strangers: modules that are called norms, but whose behaviour is not understood.
        unsupported: path to what could not be read there.
        functional: normalizations that ran as functions, outside any tapped module: where and how often a step.
        impossible: norms whose shares lie outside of 0 to 1: they do something that their kind does not say.
        tied: parameter name to its other names.
        hooked: norms with hooks that are not the lens'.
        nonfinite: the first place and step with a NaN or infinity; empty where there was none.
        steps: recorded steps.
        gradient: what the recorded parameter gradients are.
        passes: which passes were left out of the rows, why, and in which step first; and where nobody could tell.
        calls: of the first recorded step: the most calls a norm had, and the norms with another number than one.
        setting: what the numbers depend on besides the model (compiled norms, checkpoints, precision, loss scale,
            the fewest and the most backward passes that make up a step's gradient, in how many recorded steps it holds
            what was there before them, cadence and what an automatic one came to, processes, norms whose placement no
            pass has shown, the first place that was not finite), and whether the native core or torch's operations
            measured.
        notes: anything else that changes what the numbers mean.
    """

    norms: tuple[str, ...] = ()
    fired: tuple[str, ...] = ()
    without_grad_output: tuple[str, ...] = ()
    without_grad_input: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    without_graph: tuple[str, ...] = ()
    transformed: tuple[str, ...] = ()
    functions_recorded: bool = False
    strangers: tuple[str, ...] = ()
    unsupported: dict[str, str] = field(default_factory=dict)
    functional: dict[str, int] = field(default_factory=dict)
    impossible: tuple[str, ...] = ()
    tied: dict[str, list[str]] = field(default_factory=dict)
    hooked: tuple[str, ...] = ()
    nonfinite: str = ""
    steps: int = 0
    gradient: str = ""
    passes: tuple[str, ...] = ()
    calls: dict[str, Any] = field(default_factory=dict)
    setting: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        """Return one sentence for everything that was missed, with what to do."""
        found = []
        if not self.norms:
            found.append("No normalization was found. Register the model's own with gradlens.register_norm.")
        if self.steps == 0:
            found.append("No step was recorded: call lens.step() after the optimizer, or pass optimizer= to attach.")
        elif self.silent:
            found.append(
                f"{len(self.silent)} of {len(self.norms)} norms never ran as modules: {_some(self.silent)}. "
                + (
                    "They may be unused."
                    if self.functions_recorded
                    else "They may be unused, or called as functions: try attach(..., functional=True)."
                )
            )
        if self.transformed:
            found.append(
                f"Calls inside torch.func (other than grad alone) or forward-mode AD are not recorded: "
                f"{_some(self.transformed)}. Record an ordinary backward pass."
            )
        if self.strangers:
            found.append(
                "Modules that are called norms, but whose behaviour is not understood, are not recorded: "
                f"{_some(self.strangers)}. "
                "Name their axes with gradlens.register_norm."
            )
        if self.impossible:
            found.append(
                f"The shares of {_some(self.impossible)} are impossible: these norms do not do what was taken for "
                "granted. Do not use their rows; look at their axes, and at what else than a gain they multiply by."
            )
        if self.hooked:
            found.append(
                f"Other hooks stand on {_some(self.hooked)}: what they change counts as the norm's. "
                "If they change an input, an output or a gradient, record without them."
            )
        found += self.notes
        found += [f"Nothing is recorded at {path}: {why}." for path, why in self.unsupported.items()]
        if self.without_grad_output:
            found.append(f"No gradient reached the output of {_some(self.without_grad_output)}.")
        if self.functional:
            found.append(
                f"Normalizations ran as functions and are not recorded: {_some(tuple(self.functional))}. "
                "Use attach(..., functional=True)."
            )
        if self.nonfinite:
            found.append(f"Non-finite values, left out of all sums, first at {self.nonfinite}.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {**asdict(self), "problems": self.problems()}

    def in_short(self) -> str:
        """Return one line: what was seen, and how much was missed."""
        problems = self.problems()
        found = f"{len(self.fired)} of {_counted(len(self.norms), 'norm')} seen in {_counted(self.steps, 'step')}"
        return f"{found}; {_counted(len(problems), 'problem') if problems else 'nothing was missed'}"

    def _repr_html_(self) -> str:
        problems = "".join(f"<li>{escape(problem)}</li>" for problem in self.problems())
        return f"<div><p>{escape(self.in_short())}</p><ul>{problems}</ul></div>"

    def __str__(self) -> str:
        found = f"{_counted(len(self.norms), 'norm')} found, {len(self.fired)} fired"
        head = f"{found} in {self.steps} recorded steps. {self.gradient}"
        fewest, most = self.setting.get("passes", (1, 1))
        number = f"{most}" if fewest == most else f"{fewest} to {most}"
        several = [f"{number} backward passes make up the gradient of a step."] if most > 1 or fewest < most else []
        names = [path for path in self.setting.get("by_names", ()) if path in self.fired]
        by_names = [f"Placements by known names, for no pass showed them: {_some(tuple(names))}."] if names else []
        by = {"native": "the native core", "torch": "torch's operations"}.get(self.setting.get("measured_by", ""))
        measured = [f"Measured by {by}."] if by else []
        cadence = [said] if (said := self.setting.get("cadence")) else []
        head = " ".join([head, *measured, *cadence, *several, *self.passes, *by_names])
        return "\n".join([head, *(f"- {problem}" for problem in self.problems())])


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _some(names: tuple[str, ...], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
