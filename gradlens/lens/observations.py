"""What the recorded steps have shown, from which the audit says what was missed."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from gradlens.lens.audit import Audit
from gradlens.lens.hook_state import HookState
from gradlens.lens.passes import NOTHING, PAUSED, RAISED, ZEROED, Counted
from gradlens.lens.step_tables import Shown
from gradlens.lens.taps.functional import Watcher

UNUSED = "unused"
_GRADIENT = "Parameter gradients: at the end of backward, after reductions, before clipping, loss scale divided out."
_OLDER = (
    "Gradients that were there when step {step} began were not zeroed before its last backward pass: those of "
    "parameters are a sum over steps. Norms hold the step's own. Call zero_grad() once a step."
)
_REPEATED = (
    "Several backward passes went through one forward pass, first in step {step} (retain_graph=True): of norms their "
    "energies are added, which is not the energy of the gradient of the summed loss. Call backward once, on the sum."
)
#: What was left out, and why.
_WHY = {
    NOTHING: "backward passes that left no gradient in the parameters",
    ZEROED: "backward passes whose gradient was thrown away before the last one that counts",
    RAISED: "backward passes that raised",
    PAUSED: "backward passes inside of lens.paused()",
    UNUSED: "forward passes that no backward pass came back to",
}
#: A share removed may be negative by rounding (half precision included), not by more.
_IMPOSSIBLE = 0.02


class Observations:
    """Which norms ran, where gradients arrived, and what cannot be; ``notes`` are sentences for the audit."""

    def __init__(self) -> None:
        self.steps = 0
        self.notes: set[str] = set()
        self._fired: set[str] = set()
        self._arrived: dict[str, set[str]] = {"grad_output": set(), "grad_input": set()}
        #: Calls of each norm in the first recorded step.
        self._calls: Counter[str] = Counter()
        #: Backward passes that count: the fewest in a recorded step, and the most.
        self.backwards = (0, 0)
        #: Why passes were left out, to how many and the first step.
        self._left_out: dict[str, tuple[int, int]] = {}
        #: The first step in which no gradient was seen in the parameters, and passes all count.
        self._without: int | None = None
        self._impossible: set[str] = set()
        self._first_nonfinite = ""
        self._said: set[str] = set()

    def news(self) -> tuple[int, ...]:
        """Return what changes when there is something new for the audit to say."""
        return self.steps > 0, len(self.notes), len(self._left_out), self.backwards[1]

    def passes(self, step: int, counted: Counted, unused: int, shown: Shown) -> None:
        """Note which passes a recorded step consists of, and which were left out."""
        count = len(counted.numbers)
        fewest, most = self.backwards
        self.backwards = (min(fewest, count), max(most, count)) if self.steps > 1 else (count, count)
        for why, number in [*counted.left_out.items(), *([(UNUSED, unused)] if unused else [])]:
            before, first = self._left_out.get(why, (0, step))
            self._left_out[why] = before + number, first
        if not counted.visible and self._without is None:
            self._without = step
        if counted.older:
            self._once(_OLDER, step)
        if shown.repeated:
            self._once(_REPEATED, step)

    def _once(self, sentence: str, step: int) -> None:
        """Note something with the step in which it was first seen."""
        if sentence not in self._said:
            self._said.add(sentence)
            self.notes.add(sentence.format(step=step))

    def step(self, where: str, norms: Mapping[str, Any] | None, shown: Shown) -> None:
        """Look at a recorded step.

        Args:
            where: its number, and of several processes this one's.
            norms: its rows of the table ``norms``, if there are any.
            shown: what all of its rows show.
        """
        self.steps += 1
        if shown.broken and not self._first_nonfinite:
            self._first_nonfinite = f"{shown.broken}, {where}"
        if norms is None:
            return
        sites = norms["site"]
        if self.steps == 1:
            self._calls.update(sites)
        self._fired.update(sites)
        for end, arrived in self._arrived.items():
            # Where no vector was finite there is nothing to tell whether it came.
            came = (norms[f"n_{end}"] > 0) | (norms["n_input"] == 0)
            arrived.update(sites if came.all() else [site for site, c in zip(sites, came, strict=True) if c])
        whole = (norms["n_grad_input"] == norms["n_grad_output"]) & (norms["energy_g"] > 0)
        removed = norms["energy_g"] - norms["energy_recentering"] - norms["energy_kept"]
        wrong = whole & (removed < -_IMPOSSIBLE * norms["energy_g"])
        if wrong.any():
            self._impossible.update(site for site, w in zip(sites, wrong, strict=True) if w)

    def _passes_in_words(self) -> tuple[str, ...]:
        """Say which passes were left out, and where nobody could tell."""
        said = []
        if self._without is not None:
            said.append(
                f"In step {self._without} no backward pass was seen to leave a gradient in the parameters: all that "
                "came to their end are in the rows."
            )
        if self._left_out:
            reasons = [f"{_WHY[why]} ({count}, first in step {at})" for why, (count, at) in self._left_out.items()]
            said.append(f"Left out of the rows: {'; '.join(reasons)}.")
        return tuple(said)

    def audit(
        self,
        norms: tuple[str, ...],
        *,
        state: HookState,
        functions: Watcher,
        strangers: tuple[str, ...],
        told: dict[str, str],
        tied: dict[str, list[str]],
        hooked: tuple[str, ...],
        setting: dict[str, Any],
    ) -> Audit:
        """Say what was seen and what was missed; the arguments are what ``Audit`` has of these names.

        Args:
            norms: paths of the normalizations that are tapped.
            state: knows what was left out, and why.
            functions: knows the normalizations that ran as functions.
            strangers: modules that are called norms, but whose behaviour is not understood.
            told: path to what was found out of a norm that was taken for another.
            tied: parameter name to its other names.
            hooked: norms with hooks of others.
            setting: what the numbers depend on besides the model.
        """
        # What a graph holds has run, though nothing of it is a row where no gradient came back.
        ran = self._fired.union(setting["compiled"])
        fired = tuple(path for path in norms if path in ran)
        elsewhere = state.without_graph | state.transformed | state.elsewhere | functions.as_functions()
        elsewhere |= state.unsupported.keys() | told.keys()
        return Audit(
            norms=norms,
            fired=fired,
            silent=tuple(path for path in norms if path not in ran and path not in elsewhere),
            without_graph=tuple(path for path in norms if path in state.without_graph),
            transformed=tuple(path for path in norms if path in state.transformed),
            functions_recorded=functions.record,
            without_grad_output=tuple(path for path in fired if path not in self._arrived["grad_output"]),
            without_grad_input=tuple(path for path in fired if path not in self._arrived["grad_input"]),
            strangers=strangers,
            unsupported=dict(state.unsupported),
            functional=functions.unseen(),
            impossible=tuple(path for path in norms if path in self._impossible),
            notes=tuple(sorted(self.notes | {f"{path}: {what}." for path, what in told.items()})),
            tied=tied,
            hooked=hooked,
            nonfinite=self._first_nonfinite,
            passes=self._passes_in_words(),
            steps=self.steps,
            gradient=_GRADIENT,
            calls={
                "most": max(self._calls.values(), default=0),
                "sites": {site: calls for site, calls in self._calls.items() if calls != 1},
            },
            setting=setting,
        )
