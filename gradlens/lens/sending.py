"""What is recorded goes to a tracker as well: anything with ``log(numbers, step=)``, as runs of wandb and trackio have.

Names group by table and place: ``gradlens/norms/layers.0.norm1/rescaling``, ``gradlens/steps/grad_norm``. What is
missing or not finite is left out: some trackers draw it as 0, some refuse it.
"""

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Protocol

import pandas as pd

from gradlens.errors import GradlensError, one_line
from gradlens.lens.guard import warn
from gradlens.lens.sinks import Sink
from gradlens.recording import Recording
from gradlens.recording.derive import merge
from gradlens.recording.schema import PUBLIC

#: What is sent where nobody chose: of a model with a thousand parameters everything would be some 25,000 numbers.
CHOSEN = (
    "/steps/|/norms/.*/(recentering|rescaling|kept|inv_sigma|backward_gain)$|/params/.*/(grad_norm|weight_norm)$"
    "|/attention/.*/(logit_max|relative_entropy)$"
)
_TABLES = ("norms", "activations", "params", "outputs", "attention", "tokens")


class Tracker(Protocol):
    """What numbers are sent to."""

    def log(self, numbers: dict[str, float], *, step: int) -> Any:
        """Take the numbers of one step."""


class SendingSink:
    """Writes to another sink, and sends what it wrote of a step once all of it is there.

    A tracker that raises is told nothing more, and the recording goes on; with ``strict`` it raises.

    Args:
        sink: what is written to.
        tracker: what is told.
        chosen: names in which it is found are sent.
        strict: raise what the tracker raises.
    """

    def __init__(self, sink: Sink, tracker: Tracker, chosen: re.Pattern[str], strict: bool) -> None:
        self._tracker: Tracker | None = tracker
        self._chosen = chosen
        self._sink, self._strict, self.lasting = sink, strict, sink.lasting
        self._waiting: dict[str, Mapping[str, Any]] = {}
        #: Name to whether it is chosen.
        self._wanted: dict[str, bool] = {}

    def append(self, table: str, columns: Mapping[str, Any]) -> None:
        """Append rows to one table; a step's row of ``steps``, which comes last, sends all of it."""
        self._sink.append(table, columns)
        if self._tracker is None:
            return
        if table in _TABLES:
            self._waiting[table] = columns
        elif table == "steps":
            waiting, self._waiting = self._waiting, {}
            self._send(int(columns["step"][0]), waiting | {"steps": columns})

    def annotate(self, meta: Mapping[str, Any]) -> None:
        """Add metadata."""
        self._sink.annotate(meta)

    def next_step(self) -> int:
        """Return the number of the step after the last that is recorded."""
        return self._sink.next_step()

    def begin_attempt(self, step: int) -> None:
        """Let what follows replace rows from this step on; what was sent stays with the tracker."""
        self._sink.begin_attempt(step)

    def close(self, status: str) -> None:
        """Set the final status; further calls do nothing."""
        self._sink.close(status)

    def recording(self) -> Recording:
        """Return what was recorded so far."""
        return self._sink.recording()

    def _send(self, step: int, tables: Mapping[str, Mapping[str, Any]]) -> None:
        try:
            numbers = {
                name: value
                for table, columns in tables.items()
                for name, value in (_of_step(columns) if table == "steps" else self._of_places(table, columns))
                if isfinite(value) and self._wants(name)
            }
            if numbers and self._tracker is not None:
                self._tracker.log(numbers, step=step)
        except Exception as error:
            if self._strict:
                raise
            self._tracker = None
            warn(f"gradlens: nothing more is sent from step {step} on: the tracker failed: {one_line(error)}.")

    def _wants(self, name: str) -> bool:
        if name not in self._wanted:
            self._wanted[name] = self._chosen.search(name) is not None
        return self._wanted[name]

    def _of_places(self, table: str, columns: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
        """Yield the numbers of a table, site by site or parameter by parameter; of columns in which any is chosen."""
        rows = merge(table, pd.DataFrame(dict(columns)))
        places = _places(rows)
        for column in PUBLIC[table]:
            if column.dtype != "float" and column.name != "nonfinite":
                continue
            names = [f"gradlens/{table}/{place}{column.name}" for place in places]
            if any(map(self._wants, names)):
                values = rows[column.name] if column.formula is None else column.formula(rows)
                yield from zip(names, map(float, values), strict=True)


def checked(send: Any) -> tuple[Tracker, re.Pattern[str]]:
    """Return a tracker and what is chosen for it.

    Args:
        send: the tracker, or it and a regular expression.

    Raises:
        GradlensError: it is no tracker, or what should be a regular expression is none.
    """
    tracker, pattern = send if isinstance(send, tuple) and len(send) == 2 else (send, CHOSEN)
    if not callable(getattr(tracker, "log", None)):
        raise GradlensError(
            f"send must be a tracker, which has log(numbers, step=), or it and a regular expression; got {send!r:.200}."
            " gradlens.integrations.trackers makes one of TensorBoard's SummaryWriter and of MLflow."
        )
    try:
        return tracker, re.compile(pattern)
    except (re.error, TypeError) as error:
        raise GradlensError(f"send=(tracker, {pattern!r}): that is no regular expression ({error}).") from error


def _of_step(columns: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a row of ``steps``, and those that the user passed."""
    own = {name: values[0] for name, values in columns.items() if isinstance(values[0], float)}
    for name, value in (own | columns["extra"][0]).items():
        yield f"gradlens/steps/{name}", value


def _places(frame: pd.DataFrame) -> list[str]:
    """Return what stands before a number's name: the site or parameter, and what of it."""
    places = [""] * len(frame)
    for key in ("site", "name", "tensor", "call", "head"):
        if key in frame:
            word = key if key in ("call", "head") else ""
            # A norm that is called once a step has no number in its names.
            said = ("" if key == "call" and not value else f"{word}{value}/" for value in frame[key].tolist())
            places = [place + part for place, part in zip(places, said, strict=True)]
    return places
