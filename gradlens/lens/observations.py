"""What hooks came across and recorded steps have shown, from which ``auditing`` says what was missed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gradlens.lens.passes import Counted

if TYPE_CHECKING:
    from gradlens.lens.cadence import Cadence

#: Why a forward pass is left out: no backward pass came back to it.
UNUSED = "unused"
_OLDER = (
    "Gradients that were there when step {step} began were not zeroed before its last backward pass: those of "
    "parameters are a sum over steps. Norms hold the step's own. Call zero_grad() once a step."
)
_REPEATED = (
    "Several backward passes went through one forward pass, first in step {step} (retain_graph=True): of norms their "
    "energies are added, which is not the energy of the gradient of the summed loss. Call backward once, on the sum."
)
#: A share removed may be negative by rounding (half precision included), not by more.
_IMPOSSIBLE = 0.02


@dataclass(frozen=True)
class Broken:
    """The first place in a step that was not finite.

    Attributes:
        site: module path, or name of a parameter; empty for the model itself.
        tensor: ``input`` or ``output`` of a module, the ``gradient`` at one, or that of a ``parameter``.
    """

    site: str
    tensor: str

    @property
    def born(self) -> str:
        """The pass that it was born in."""
        return "forward" if self.tensor in ("input", "output") else "backward"

    def __str__(self) -> str:
        name = self.site or "the model itself"
        return {
            "gradient": f"the gradient at {name}, in the backward pass; all outputs were finite",
            "parameter": f"the gradient of {name}, in the backward pass",
        }.get(self.tensor, f"the {self.tensor} of {name}, in the forward pass")


@dataclass(frozen=True)
class Shown:
    """What a step's rows show besides their numbers.

    Attributes:
        broken: the first place that was not finite; None where all was.
        repeated: whether several passes that count brought gradients to one call.
    """

    broken: Broken | None
    repeated: bool


class Observations:
    """All that the audit is made of, in one place: what hooks came across, and what the recorded steps have shown.

    Args:
        cadence: which steps are recorded.
        loss_scale: whether a scaler's factor is divided out.
        graphs_dropped: whether graphs had been compiled before, and were dropped.
    """

    def __init__(self, *, cadence: "Cadence", loss_scale: bool, graphs_dropped: bool) -> None:
        self.cadence, self.loss_scale, self.graphs_dropped = cadence, loss_scale, graphs_dropped
        #: The precision of autocast around the model's last forward pass; empty without.
        self.autocast = ""
        #: Sentences that say what changes the meaning of the numbers.
        self.notes: set[str] = set()
        #: Path to what could not be read there.
        self.unsupported: dict[str, str] = {}
        #: Sites that ran without a graph, outside of any checkpoint, and those inside of a transform of torch.func.
        self.without_graph: set[str] = set()
        self.transformed: set[str] = set()
        #: Norms whose output needs no gradient: neither does their input, nor are they trained.
        self.frozen: set[str] = set()
        #: Sites whose activations another process records, which has the same.
        self.elsewhere: set[str] = set()
        #: Where normalizations ran as functions that are not recorded, and how often; modules that were found to be
        #: norms when they ran, whose functions are seen.
        self.functional: Counter[str] = Counter()
        self.found: set[str] = set()
        #: How many steps were recorded.
        self.steps = 0
        #: Norms that ran, and those where a gradient arrived.
        self.fired: set[str] = set()
        self.arrived: dict[str, set[str]] = {"grad_output": set(), "grad_input": set()}
        #: Calls of each norm in the first recorded step.
        self.calls: Counter[str] = Counter()
        #: Backward passes that count: the fewest in a recorded step, and the most.
        self.backwards = (0, 0)
        #: Recorded steps whose gradient also holds what was there before them, of those that could tell; and in how
        #: many of them that of which parameters does, of a few, and that of which does not.
        self.older, self.asked_older = 0, 0
        self.older_in, self.zeroed_in = Counter[str](), Counter[str]()
        #: Why passes were left out, to how many and the first step.
        self.left_out: dict[str, tuple[int, int]] = {}
        #: The first step in which no gradient was seen in the parameters, and passes all count.
        self.without: int | None = None
        #: Norms whose shares cannot be.
        self.impossible: set[str] = set()
        #: The first place that was not finite: in words, and as it is recorded.
        self.first_nonfinite, self.broken = "", dict[str, Any]()
        self._said: set[str] = set()

    def news(self) -> tuple[int, ...]:
        """Return what changes when there is something new for the audit to say."""
        return self.steps > 0, len(self.notes), len(self.left_out), self.backwards[1]

    def passes(self, step: int, counted: Counted, unused: int, shown: Shown) -> None:
        """Note which passes a recorded step consists of, and which were left out."""
        count = len(counted.numbers)
        fewest, most = self.backwards
        self.backwards = (min(fewest, count), max(most, count)) if self.steps > 1 else (count, count)
        for why, number in [*counted.left_out.items(), *([(UNUSED, unused)] if unused else [])]:
            before, first = self.left_out.get(why, (0, step))
            self.left_out[why] = before + number, first
        if not counted.visible and self.without is None:
            self.without = step
        self.asked_older += counted.older is not None
        if counted.older:
            self.older += 1
            self.older_in.update(counted.older)
            self.zeroed_in.update(counted.zeroed)
            self._once(_OLDER, step)
        if shown.repeated:
            self._once(_REPEATED, step)

    def _once(self, sentence: str, step: int) -> None:
        """Note something with the step in which it was first seen."""
        if sentence not in self._said:
            self._said.add(sentence)
            self.notes.add(sentence.format(step=step))

    def step(self, step: int, process: str, norms: Mapping[str, Any] | None, shown: Shown) -> None:
        """Look at a recorded step.

        Args:
            step: its number.
            process: this one's number; empty where there is one alone.
            norms: its rows of the table ``norms``, if there are any.
            shown: what all of its rows show.
        """
        self.steps += 1
        if shown.broken and not self.first_nonfinite:
            where = f"step {step}" + (f", process {process}" if process else "")
            self.first_nonfinite = f"{shown.broken}, {where}"
            self.broken = {**asdict(shown.broken), "born": shown.broken.born, "step": step}
        if norms is None:
            return
        sites = norms["site"]
        if self.steps == 1:
            self.calls.update(sites)
        self.fired.update(sites)
        for end, arrived in self.arrived.items():
            # Where no vector was finite there is nothing to tell whether it came.
            came = (norms[f"n_{end}"] > 0) | (norms["n_input"] == 0)
            arrived.update(sites if came.all() else [site for site, c in zip(sites, came, strict=True) if c])
        whole = (norms["n_grad_input"] == norms["n_grad_output"]) & (norms["energy_g"] > 0)
        removed = norms["energy_g"] - norms["energy_recentering"] - norms["energy_kept"]
        wrong = whole & (removed < -_IMPOSSIBLE * norms["energy_g"])
        if wrong.any():
            self.impossible.update(site for site, w in zip(sites, wrong, strict=True) if w)
