"""The answer to "which learning rate, and is a warm-up needed?", with the readings it rests on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any

from torch import Tensor, nn

from gradlens.errors import GradlensError, ModelError
from gradlens.outputs import PROJECTION
from gradlens.probes.learning_rate import batch_list, learning_rate_limit
from gradlens.probes.loss import Loss
from gradlens.probes.optimizers import OptimizerKind, Plan, trained_copy
from gradlens.probes.reading import Reading
from gradlens.probes.trial import trial

#: A limit that grows by this factor within a few steps is one that a warm-up waits for.
GROWS = 1.5
#: Where trials begin without a limit: Adam's usual learning rate.
USUAL = 1e-3
_ONE_BATCH = (
    "on one batch Adam's preconditioner is that batch's own absolute gradient, which puts the limit far too low. Pass "
    "several batches: a list of them in Python; for gradlens inspect a build or a --batch function that draws its "
    "batch at random, for torch is seeded anew before each call."
)
_DOUBT = "the check of the limit speaks against it."
_NOT_SHOWN = (
    "How far training gets this does not show: a model can be stable at first and yet stall without a warm-up, as "
    "Post-LN does, the more the deeper it is. Only training with a warm-up and without one shows that."
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Which learning rate to take, and whether to warm up.

    Attributes:
        lr: half of the lowest of the two limits, but for those in doubt, and of what a trial survived; infinite where
            there is no limit at the start.
        warmup: whether the stability of the first steps calls for a warm-up; None where it cannot be judged. How far
            training gets without one it does not say.
        text: both in words, with the numbers.
        readings: the limit at the start, what a trial survived, the limit after a few steps; the trial alone for Adam
            on one batch; the limit at the start and the trial where the first is in doubt.
    """

    lr: float
    warmup: bool | None
    text: str
    readings: tuple[Reading, ...]


def answer(
    model: nn.Module,
    batches: Any,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    *,
    optimizer: OptimizerKind = "adam",
    lr: float | None = None,
    steps: int = 10,
    seed: int = 0,
    on_reading: Callable[[Reading], None] | None = None,
) -> Answer:
    """Measure what learning rate the model can take now and a few steps later, and say what follows.

    A warm-up is called for where the planned learning rate is above the limit at the start, or where the limit is 1.5
    times as high after a few steps at a lower rate and none is planned (Kalra and Barkeshli 2024, 2406.09405: a warm-up
    serves to lower the curvature); not where the planned rate is above the limit then, too, and trials do not survive
    it. For Adam on one batch neither limit is known, for v̂ is then that batch's own squared gradient: the answer is
    from the trial alone, as it is where the limit at the start is in doubt.

    Args:
        model: never changed; copies of it are trained.
        batches: as in ``learning_rate_limit``.
        loss_fn: (output, batch) to a scalar; without it the output's own ``.loss``.
        optimizer: ``"adam"``, ``"sgd"`` or ``"momentum"``.
        lr: the learning rate that is planned.
        steps: between the two limits.
        seed: of dropout.
        on_reading: called with each reading as it is made, those before an error too.

    Raises:
        GradlensError: ``lr`` is not positive; and see the probes.
        ModelError: there is no loss but the output's product with a random direction, which has no lower bound; and
            see ``Loss``.
    """
    check_planned(lr)
    keep = on_reading or (lambda reading: None)
    several = batch_list(batches)
    if Loss(model, several[0], loss_fn, seed=seed).origin == PROJECTION:
        raise ModelError(
            f"A learning rate needs a loss that training lowers; here there is none but {PROJECTION}, which has no "
            "lower bound. Pass a loss_fn(output, batch), or return (module, batch, loss_fn) from build."
        )
    if optimizer == "adam" and len(several) == 1:
        survived = trial(model, several, loss_fn, optimizer=optimizer, start=USUAL, seed=seed)
        keep(survived)
        return _from_trial(survived, (), optimizer, lr, _ONE_BATCH)
    now = learning_rate_limit(model, several, loss_fn, optimizer=optimizer, seed=seed)
    keep(now)
    if not (isfinite(now.value) or now.doubt):
        text = (
            f"No direction curves upwards at initialization, so the curvature sets no limit to {optimizer}'s learning "
            "rate; look at the loss: one that is linear in the weights has no curvature."
        )
        return Answer(lr=inf, warmup=False, text=text, readings=(now,))
    start = now.value if isfinite(now.value) else USUAL
    survived = trial(model, several, loss_fn, optimizer=optimizer, start=start, seed=seed)
    keep(survived)
    if now.doubt:
        return _from_trial(survived, (now,), optimizer, lr, _DOUBT)
    rate = min(now.value, survived.value) / 2
    later = _limit_after(steps, rate, model, several, loss_fn, optimizer, seed)
    keep(later)
    limits = [
        (now.value, "where the edge of stability lies at initialization"),
        (survived.value, "the most that trials survived"),
    ]
    limits += [] if later.doubt else [(later.value, f"where the edge of stability lies after {steps} steps")]
    lowest, what = min(limits)
    warmup, why = _warmup(now, survived, later, lr, f"after {steps} steps at {rate:.2g}")
    text = (
        f"Take a learning rate of at most {lowest / 2:.2g} for {optimizer}: half of {lowest:.2g}, {what}. "
        f"{_divergence(survived, lr)} {why}"
    )
    return Answer(lr=lowest / 2, warmup=warmup, text=text, readings=(now, survived, later))


def check_planned(lr: float | None) -> None:
    """Raise where a planned learning rate is none.

    Raises:
        GradlensError: it is not positive and finite.
    """
    if lr is not None and not 0 < lr < inf:
        raise GradlensError(f"A planned learning rate must be positive and finite; got {lr}. Name another.")


def _from_trial(
    survived: Reading, before: tuple[Reading, ...], optimizer: OptimizerKind, lr: float | None, why: str
) -> Answer:
    text = (
        f"Take a learning rate of at most {survived.value / 2:.2g} for {optimizer}: half of {survived.value:.2g}, the "
        f"most that trials survived. {_divergence(survived, lr)} The edge of stability and the warm-up are not judged: "
        f"{why}"
    )
    return Answer(lr=survived.value / 2, warmup=None, text=text, readings=(*before, survived))


def _divergence(survived: Reading, lr: float | None) -> str:
    if not isfinite(survived.high):
        return f"Trials of it survived every learning rate up to {survived.value:.2g}."
    text = f"Trials survived {survived.value:.2g} and not {survived.high:.2g}: there training diverges."
    if lr is not None and lr >= survived.high:
        text += f" The planned {lr:g} is above that."
    return text


def _limit_after(
    steps: int,
    rate: float,
    model: nn.Module,
    batches: Sequence[Any],
    loss_fn: Callable[[Any, Any], Tensor] | None,
    optimizer: OptimizerKind,
    seed: int,
) -> Reading:
    """Read the limit again after some steps at a learning rate; those steps count as part of what it cost."""
    trained, losses = trained_copy(model, batches, loss_fn, Plan(kind=optimizer), rate, steps, seed)
    later = learning_rate_limit(trained, batches, loss_fn, optimizer=optimizer, seed=seed)
    return replace(
        later,
        name=f"{later.name} after {steps} steps",
        forward=later.forward + len(losses),
        backward=later.backward + len(losses),
    )


def _warmup(now: Reading, survived: Reading, later: Reading, lr: float | None, when: str) -> tuple[bool | None, str]:
    """Return whether to warm up, and why.

    Args:
        now: the limit at the start, not in doubt.
        survived: what trials survived.
        later: the limit after some steps.
        lr: the learning rate that is planned, if any.
        when: that was.
    """
    then = f"{'in doubt' if later.doubt else f'{later.value:.2g}'} {when}"
    moved = f"the limit is {now.value:.2g} at first and {then}"
    if lr is not None and lr > now.value:
        if lr > survived.value and (later.doubt or lr > later.value):
            return False, (
                f"Lower the rate: the planned {lr:g} is more than trials survived and above the limit, which a warm-up "
                f"is not seen to bring up to it ({moved})."
            )
        return True, f"A warm-up is needed, or a lower rate: the planned {lr:g} is above the limit ({moved})."
    grows = not later.doubt and later.value > GROWS * now.value
    if grows and lr is None:
        return True, f"A warm-up pays: {moved}, so that higher rates are safe soon after the start."
    falls = not later.doubt and lr is not None and lr > later.value
    at = "below the limit" if lr is None else f"at the planned {lr:g}"
    sentences = (
        f"The first steps are stable without a warm-up {at}: {moved}.",
        "With one, higher rates are safe soon after the start." if grows else "",
        "The limit falls, against which a warm-up is no help." if falls else "",
        _NOT_SHOWN,
    )
    return None if later.doubt else False, " ".join(filter(None, sentences))
