"""What the recorded steps have shown, from which the audit says what was missed."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from gradlens.lens.audit import Audit
from gradlens.lens.functional import Watcher
from gradlens.lens.switch import Switch

_GRADIENT = "Parameter gradients: at the end of backward, after reductions, before clipping, loss scale divided out."
#: A share removed may be negative by rounding (half precision included), not by more.
_IMPOSSIBLE = 0.02


class Observations:
    """Which norms ran, where gradients arrived, and what cannot be; ``notes`` are sentences for the audit."""

    def __init__(self) -> None:
        self.steps = 0
        self.notes: set[str] = set()
        self._fired: set[str] = set()
        self._arrived: dict[str, set[str]] = {"grad_output": set(), "grad_input": set()}
        #: Of the first recorded step: calls of each norm, backward passes.
        self._calls: Counter[str] = Counter()
        self.backwards = 0
        self._impossible: set[str] = set()
        self._first_nonfinite = ""

    def backward(self) -> None:
        """Count a backward pass that ended in a recorded step."""
        if not self.steps:
            self.backwards += 1

    def step(self, step: int, norms: Mapping[str, Any] | None) -> None:
        """Look at a recorded step.

        Args:
            step: its number.
            norms: its rows of the table ``norms``, if there are any.
        """
        self.steps += 1
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
        broken = norms["vectors"] > norms["n_input"]
        if broken.any() and not self._first_nonfinite:
            self._first_nonfinite = f"{sites[int(broken.argmax())]}, step {step}"

    def audit(
        self,
        norms: tuple[str, ...],
        *,
        switch: Switch,
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
            switch: knows what was left out, and why.
            functions: knows the normalizations that ran as functions.
            strangers: modules that are called norms, but whose behaviour is not understood.
            told: path to what was found out of a norm that was taken for another.
            tied: parameter name to its other names.
            hooked: norms with hooks of others.
            setting: what the numbers depend on besides the model.
        """
        fired = tuple(path for path in norms if path in self._fired)
        elsewhere = switch.without_graph | switch.transformed | switch.elsewhere | functions.as_functions()
        elsewhere |= switch.unsupported.keys() | told.keys()
        return Audit(
            norms=norms,
            fired=fired,
            silent=tuple(path for path in norms if path not in self._fired and path not in elsewhere),
            without_graph=tuple(path for path in norms if path in switch.without_graph),
            transformed=tuple(path for path in norms if path in switch.transformed),
            functions_recorded=functions.record,
            without_grad_output=tuple(path for path in fired if path not in self._arrived["grad_output"]),
            without_grad_input=tuple(path for path in fired if path not in self._arrived["grad_input"]),
            strangers=strangers,
            unsupported=dict(switch.unsupported),
            functional=functions.unseen(),
            impossible=tuple(path for path in norms if path in self._impossible),
            notes=tuple(sorted(self.notes | {f"{path}: {what}." for path, what in told.items()})),
            tied=tied,
            hooked=hooked,
            nonfinite=self._first_nonfinite,
            steps=self.steps,
            gradient=_GRADIENT,
            calls={
                "most": max(self._calls.values(), default=0),
                "sites": {site: calls for site, calls in self._calls.items() if calls != 1},
            },
            setting=setting,
        )
