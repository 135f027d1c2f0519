"""One model under the lens, as a user would put it there, and what came of every norm in it."""

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import gradlens
from tests.norms_table.formula import Formula, UnprovedError, expected, first
from tests.norms_table.witness import Witness

OUTCOMES = ("right", "named", "refused", "wrong", "crash", "silent")
SHARES = ("recentering", "rescaling", "kept")
NORMS = ("inv_sigma", "grad_output_norm", "grad_input_norm")
#: Classes that normalize nothing: those that are called norms and multiply by constants, and activations.
NO_NORMS = "NoNorm|FrozenBatchNorm|^(?!.*Norm).*Activation"
#: What the model's own gradients may differ by: autograd adds a composite norm's and the skip path's in another order.
SAME = 2e-5


@dataclass(frozen=True)
class Verdict:
    """What came of one site, or of one model."""

    outcome: str
    said: str = ""


Build = Callable[[], nn.Module]
Loss = Callable[[nn.Module], Tensor]


def judge(
    build: Build, loss: Loss, formulas: Callable[[nn.Module], dict[str, Formula | None]], steps: int = 1
) -> dict[str, Verdict]:
    """Run a model with and without the lens, and return a verdict by path; that of "" is of the model as a whole.

    Args:
        build: builds the model, the same each time, ready to be trained.
        loss: runs it and returns its loss, the same each time.
        formulas: what each norm of a model computes, by path; None for one that has no formula here, and so must not
            have rows.
        steps: passes, of which the last is compared: what a first call tells is recorded from the second on.
    """
    twin, model = build(), build()
    known = formulas(twin)
    witness = Witness(twin, [path for path, formula in known.items() if formula is not None])
    for _ in range(steps):
        twin.zero_grad()
        witness.calls.clear()
        value = loss(twin)
        value.backward()
    try:
        with gradlens.attach(model) as lens:
            for _ in range(steps):
                model.zero_grad()
                seen = loss(model)
                seen.backward()
                lens.step()
            rows, audit = lens.recording.norms, lens.audit()
            rows = rows[rows["step"] == steps - 1]
    except gradlens.GradlensError as error:
        return {"": Verdict("refused", str(error))}
    except Exception as error:  # whatever the lens lets through ends a user's training
        return {"": Verdict("crash", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")}
    off = _difference(twin, model, value, seen)
    if off > SAME:
        again = build()
        repeated = loss(again)
        repeated.backward()
        if _difference(twin, again, value, repeated) > SAME:
            raise RuntimeError("its gradients differ from one run to the next, without the lens")
        return {"": Verdict("crash", f"the model's own gradients differ by {off:.2g} from those without the lens")}
    said = audit.problems()
    found = {"": Verdict("right", " ".join(said))}
    for path in dict.fromkeys([*known, *rows["site"]]):
        of_site = rows[rows["site"] == path].sort_values("call").to_dict("records")
        found[path] = _of_site(path, known.get(path), of_site, witness, said, audit, twin)
    return found


def _of_site(
    path: str,
    formula: Formula | None,
    rows: list[dict[str, Any]],
    witness: Witness,
    said: list[str],
    audit: Any,
    model: nn.Module,
) -> Verdict:
    words = next((line for line in said if names(line, path)), "") or _among(path, audit)
    calls = [call for call in witness.calls[path] if call.x.numel()]  # an expert without tokens
    try:  # proved, rows or not
        numbers = [expected(formula, call) for call in calls] if formula is not None else []
    except UnprovedError:
        name = type(model.get_submodule(path)).__name__
        if rows:
            return Verdict("wrong", "rows of a class that none of the formulas is the one of")
        return Verdict("wrong" if re.search(NO_NORMS, name) else "named", words) if words else Verdict("none")
    if not rows:
        if formula is not None and not calls:
            return Verdict("none", "it did not run")
        if calls and all(call.grad_output is None for call in calls) and words:
            return Verdict("right", words)
        return Verdict("named", words) if words else Verdict("silent")
    if formula is None:
        return Verdict("wrong", "rows of what is no norm, or of none that has a formula here")
    if len(rows) != len(calls):
        return Verdict("wrong", f"{len(rows)} rows of {len(calls)} calls")
    for row, must in zip(rows, numbers, strict=True):
        wrong = _compared(row, must)
        if wrong:
            lost = all(row[name] != row[name] for name in SHARES) and words
            return Verdict("named" if lost else "wrong", f"{wrong}. {words}".strip())
    return Verdict("right", words)


def names(line: str, path: str) -> bool:
    """Whether a sentence names a module: it, not one inside of it."""
    return re.search(rf"(?<![\w.]){re.escape(path)}(?!\.?\w)", line) is not None


def _among(path: str, audit: Any) -> str:
    """Look a site up in the audit's lists, of which its sentences print the first few."""
    for name, value in audit.to_dict().items():
        listed = isinstance(value, list | tuple | dict) and name not in ("norms", "fired", "calls", "tied", "problems")
        if listed and path in value:
            return f"{name}: {value[path]}" if isinstance(value, dict) else name
    return ""


def _compared(row: dict[str, Any], numbers: dict[str, float]) -> str:
    """Return the first number that is not what it must be; a number that cannot be known must be missing."""
    # Below that the squares of gradients leave float32, as README says.
    told = NORMS[:1] if 0 < numbers.get("grad_output_norm", 1.0) < 1e-18 else (*SHARES, *NORMS)
    for name in told:
        got, must = row[name], numbers.get(name, math.nan)
        got = math.nan if got is None else float(got)
        if math.isnan(got) != math.isnan(must):
            return f"{name} {got:.4g} for {must:.4g}"
        room = 1e-4 if name in SHARES else 1e-3 * abs(must) + 1e-12
        if name == "grad_input_norm":  # what cancels is known to the digits of what it is a difference of
            room += 1e-6 * numbers["grad_output_norm"] * numbers["inv_sigma"]
        if abs(got - must) > room:
            return f"{name} {got:.4g} for {must:.4g}"
    return ""


def _difference(twin: nn.Module, model: nn.Module, value: Tensor, seen: Tensor) -> float:
    """Return how far loss and gradients lie apart, relative to the largest gradient of their parameter."""
    if not torch.equal(value, seen):
        return float((value - seen).abs() / value.abs())
    ours = [parameter.grad for parameter in model.parameters()]
    theirs = [parameter.grad for parameter in twin.parameters()]
    most = max((float(grad.abs().max()) for grad in theirs if grad is not None and grad.numel()), default=0.0)
    worst = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        if (mine is None) != (other is None):
            return math.inf
        if mine is not None and mine.numel():
            least = 1e-3 * most + 1e-30
            worst = max(worst, float((mine - other).abs().max() / other.abs().max().clamp(min=least)))
    return worst


def randomized(model: nn.Module, modules: list[nn.Module]) -> nn.Module:
    """Give the vectors among the parameters of norms values of 0.3 to 1.7, for ones and zeros hide what is done."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                if parameter.is_floating_point():
                    parameter.copy_(0.3 + 1.4 * torch.rand(parameter.shape, generator=generator))
    return model


class Between(nn.Module):
    """A model that has one module of somebody's, between two maps of the last axis; ``sure`` is a norm beside it."""

    def __init__(self, subject: nn.Module, x: Tensor, further: dict[str, Any] | tuple[Any, ...], call: Any) -> None:
        super().__init__()
        self.further, self.call = further, call or _called
        self.before, self.sure = nn.Linear(x.shape[-1], x.shape[-1]), nn.LayerNorm(x.shape[-1])
        self.subject = subject
        with torch.no_grad():
            width = first(self.call(copy.deepcopy(subject), x, further)).shape[-1]
        self.after = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = 1.5 * self.before(x) + 0.3 * self.sure(x)
        return self.after(first(self.call(self.subject, h, self.further)))


def _called(subject: nn.Module, x: Tensor, further: Any) -> Any:
    return subject(x, **further) if isinstance(further, dict) else subject(x, *further)
