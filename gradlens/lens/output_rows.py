"""From what the output tap has left to the step's rows of ``outputs``: which loss it is, and what the labels say."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, log, nan, prod, sqrt
from typing import Any

import numpy as np

from gradlens.lens.output_fits import Array, Fit, Named, fit
from gradlens.lens.passes import Counted
from gradlens.lens.taps.output import Form, OutputTap, Seen
from gradlens.recording.schema import STORED

#: Share of the rows that a kind of loss must fit, to be the one.
_MOST = 0.95
#: Coefficient of variation of the rows' weights up to which they weigh the same; in half precision.
_SAME, _SAME_IN_HALF = 0.02, 0.05
#: Of two classes any gradient fits some weight: there so many rows must have the same one, and whichever way their
#: labels are named otherwise must spread them by so many times more.
_ROWS, _TIMES = 4, 4.0
#: Numbers of a ``Fit`` that add over passes.
_ADDED = ("finite", "live", "grad_squares", "probabilities", "log_probabilities", "asked", "fitted")


@dataclass(frozen=True)
class _Told:
    """What one backward pass told under one form.

    Attributes:
        seen: by the tap.
        fit: its numbers.
        open: whether any row could tell.
        fits: whether this kind of loss explains the rows' directions.
        constant: whether all rows have one weight.
        weight: that weight; NaN where they have not one, or its sign is open.
        negative: rows whose weight is below 0.
        named: which names of labels hold: 0 of the least entries, 1 of the largest; none where that is open.
    """

    seen: Seen
    fit: Fit
    open: bool = False
    fits: bool = False
    constant: bool = False
    weight: float = nan
    negative: float = 0.0
    named: tuple[int, ...] = ()


@dataclass
class OutputRows:
    """Makes the rows of the table ``outputs``, and remembers the labels of the steps before.

    Attributes:
        tap: of the model's output.
    """

    tap: OutputTap
    _labels: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def of_step(self, step: int, counted: Counted, scale: float) -> dict[str, Any]:
        """Return the step's rows as stored columns; nothing where there is none. Begins the next step.

        Args:
            step: its number.
            counted: the passes that count.
            scale: the loss scale, divided out.
        """
        try:
            return self._of_step(step, counted, scale)
        except Exception as error:
            self.tap.failed(error)
            return {}

    def _of_step(self, step: int, counted: Counted, scale: float) -> dict[str, Any]:
        outputs, inputs = self.tap.pull(counted)
        rows: dict[str, dict[str, Any]] = {}
        for site in dict.fromkeys([*(one.site for one, _ in outputs), *(site for site, _ in inputs)]):
            of_site = [(one, fit(rows, _classes(one), one.form.kind)) for one, rows in outputs if one.site == site]
            rows[site] = self._output(site, of_site, scale) if of_site else {}
            rows[site] |= _input([sums for owner, sums in inputs if owner == site])
        if not rows:
            return {}
        known = [{"step": step, "site": site, **row} for site, row in rows.items()]
        empty = {"string": "", "int": 0, "float": nan}
        return {
            c.name: tuple(row.get(c.name, "") for row in known)
            if c.dtype == "string"
            else np.array([row.get(c.name, empty[c.dtype]) for row in known])
            for c in STORED["outputs"]
        }

    def _output(self, site: str, seen: Sequence[tuple[Seen, Fit]], scale: float) -> dict[str, Any]:
        by_form: dict[tuple[int, Form], list[_Told]] = defaultdict(list)
        for one, its in seen:
            by_form[one.dims, one.form].append(_told(one, its))
        told: list[_Told] = []
        for dims in dict.fromkeys(dims for dims, _ in by_form):
            forms = {form: passes for (of, form), passes in by_form.items() if of == dims}
            told += forms[self._chosen(site, dims, forms)]
        return _numbers(told, scale) | self._of_labels(site, told)

    def _chosen(self, site: str, dims: int, forms: dict[Form, list[_Told]]) -> Form:
        """Return the form that explains the step, and tell the tap whether there is but one."""
        if len(forms) == 1:
            return next(iter(forms))
        constant = [f for f, told in forms.items() if _all(told, "constant")]
        fitting = [f for f, told in forms.items() if _all(told, "fits")]
        first = next(iter(constant or fitting or forms))
        if any(one.open for told in forms.values() for one in told):
            self.tap.told(site, dims, constant[0] if len(constant) == 1 else None, len(constant) > 1, first)
        return first

    def _of_labels(self, site: str, told: Sequence[_Told]) -> dict[str, float]:
        """Return sums over rows whose label is known: its code length by what was seen before, the model's own."""
        before, found = self._labels[site], []
        sums = {"labels": 0.0, "cross_entropy": 0.0, "correct": 0.0}
        total, nats = before.total(), 0.0
        for one in told:
            several = one.seen.form.kind == "binary" and one.seen.shape[-1] > 1
            for which in () if several else one.named:
                classes = _classes(one.seen)
                of = (one.fit.least, one.fit.largest)[which]
                labels = of.labels[of.labels >= 0].tolist()
                nats -= sum(log((before[label] + 0.5) / (total + 0.5 * classes)) for label in labels)
                found += labels
                sums["labels"] += len(labels)
                sums["cross_entropy"] += of.cross_entropy
                sums["correct"] += of.correct
        before.update(found)
        return sums | {"label_nats": nats}


def _classes(seen: Seen) -> int:
    return 2 if seen.form.kind == "binary" else seen.shape[-1]


def _told(seen: Seen, fit: Fit) -> _Told:
    if not fit.asked:
        # Rows that are all but certain of their labels tell those, if nothing else.
        sure = (fit.least.labels >= 0).any() and seen.shape[-1] > 2
        return _Told(seen, fit, named=(0,) if sure else ())
    fits = fit.fitted >= _MOST * fit.asked
    same = _SAME_IN_HALF if seen.half else _SAME
    if seen.form.kind != "binary" and seen.shape[-1] > 2:
        n, mean, spread = _spread(fit.least, fit.largest)
        constant = fits and spread <= same
        one_sided = constant or not fit.largest.n
        return _Told(
            seen, fit, True, fits, constant, mean if constant else nan, fit.largest.n if fits else 0.0,
            (0, 1) if fits and not one_sided else (int(fit.largest.n > fit.least.n),) if fits else (),
        )  # fmt: skip
    ways = [_spread(named) for named in (fit.least, fit.largest)]
    best = min((0, 1), key=lambda way: ways[way][2])
    n, mean, spread = ways[best]
    if n < _ROWS or spread > same or not fits:
        return _Told(seen, fit, True)
    if ways[1 - best][2] <= max(same, _TIMES * spread):
        return _Told(seen, fit, True, constant=True)
    return _Told(seen, fit, True, True, True, mean, n if best else 0.0, (best,))


def _spread(*named: Named) -> tuple[float, float, float]:
    """Return number, mean and coefficient of variation of rows' weights."""
    n, total, squares = (sum(getattr(one, name) for one in named) for name in ("n", "weight", "weight_squares"))
    if not n or not total:
        return n, nan, inf
    mean = total / n
    return n, mean, sqrt(max(0.0, squares / n - mean * mean)) / abs(mean)


def _all(told: Sequence[_Told], what: str) -> bool:
    return any(one.open for one in told) and all(getattr(one, what) for one in told if one.open)


def _numbers(told: Sequence[_Told], scale: float) -> dict[str, Any]:
    """Return the sums over a step's passes."""
    fitted = [one for one in told if one.weight == one.weight]
    kinds = {one.seen.form.kind for one in told if one.fits}
    of = {name: [getattr(one.fit, name) for one in told] for name in (*_ADDED, "grad_max", "row_sum")}
    return {
        "kind": kinds.pop() if len(kinds) == 1 else "",
        "classes": max(one.seen.shape[-1] for one in told),
        "passes": len(told),
        "vectors": sum(prod(one.seen.shape[:-1]) for one in told),
        "samples": sum(one.seen.shape[0] for one in told),
        "sampled": sum(len(one.fit.least.labels) for one in told),
        **{name: sum(of[name]) for name in _ADDED},
        "grad_squares": sum(of["grad_squares"]) / scale**2,
        "grad_max": max(of["grad_max"]) / scale,
        "row_sum": max(of["row_sum"]),
        "negative": sum(one.negative for one in told),
        "weighed": len(fitted),
        "weights": sum(one.weight * _rows(one) for one in fitted) / scale,
        "row_weights": sum(one.weight for one in fitted) / scale,
    }


def _rows(told: _Told) -> float:
    """Return how many rows (of ``binary``, entries) of an output have a gradient, as the sample tells."""
    whole = prod(told.seen.shape[: None if told.seen.form.kind == "binary" else -1])
    return whole * told.fit.live / max(1.0, told.fit.finite)


def _input(sums: Sequence[Array]) -> dict[str, float]:
    """Return the sums over the entries of inputs."""
    if not sums:
        return {}
    names = ("input_n", "input_total", "input_squares", "input_nonzero")
    found = {name: sum(one[at] for one in sums) for at, name in enumerate(names)}
    return found | {"input_absmax": max(one[len(names)] for one in sums)}
