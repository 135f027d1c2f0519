"""What the callbacks have in common: a lens for one training, findings while it runs, the verdict at its end."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from gradlens.analysis import Comparison, Finding, compare
from gradlens.errors import GradlensError, one_line
from gradlens.lens import attach
from gradlens.lens.lens import Lens
from gradlens.reporting import verdict_text

#: What becomes of a finding: it is logged, it ends the training, or a function gets it.
OnFinding = Literal["log", "raise"] | Callable[[Finding], object] | None

#: Recorded steps before the first look, of fewer the checks have little to say; and before each further one.
_FIRST, _AGAIN = 32, 16
#: A look waits for so many times what the one before took: they are at most 2 % of a training.
_PAUSE = 49


class Session:
    """One training that is watched.

    Args:
        lens: attached.
        say: puts a sentence into the trainer's log.
        on_finding: what becomes of the cause of what is wrong, once a code.
        judges: whether this process looks, and gives the verdict; the others record only.
    """

    def __init__(
        self, lens: Lens, say: Callable[[str], object], on_finding: OnFinding = None, judges: bool = True
    ) -> None:
        self.lens, self._say, self._judges = lens, say, judges
        self._on_finding = on_finding if judges else None
        self.ended = False
        self._told: set[str] = set()
        #: Recorded steps before the next look, and the time from which on there may be one.
        self._next, self._from = _FIRST, 0.0

    def step(self, **numbers: Tensor | float | None) -> None:
        """Close a step, as ``Lens.step`` does, and look at what was recorded where it is time to.

        Raises:
            GradlensError: something was found, and ``on_finding`` is "raise"; a function may raise anything.
        """
        self.lens.step(**numbers)  # type: ignore[arg-type]
        began = time.monotonic()
        if self._on_finding is not None and self.lens.recorded > self._next and began >= self._from:
            found, now = self._look(), time.monotonic()
            self._next, self._from = self.lens.recorded + _AGAIN, now + _PAUSE * (now - began)
            self._tell(found, ending=False)

    def end(self, status: str = "complete") -> None:
        """Take the lens off the model; log the verdict, and tell what was not told."""
        if self.ended:
            return
        self.ended = True
        self.lens.finish(status)
        self.lens.detach()
        if not self._judges:
            return
        found = self._look()
        if found is not None:
            folder = found.recordings[0].path
            verdict = verdict_text(found, width=10_000) or "Nothing asks for a look."
            self._say(f"gradlens: {verdict}" + (f" More: gradlens report {folder}" if folder else ""))
            self._tell(found, ending=True)

    def _look(self) -> Comparison | None:
        """Judge what was recorded so far. What goes wrong here is said, and the training goes on."""
        try:
            recording = self.lens.recording
            return compare([recording]) if len(recording.steps) else None
        except Exception as error:
            self._on_finding = None
            self._say(f"gradlens: the recording cannot be judged: {one_line(error)}.")
            return None

    def _tell(self, found: Comparison | None, ending: bool) -> None:
        for finding in [cause.finding for cause in found.causes] if found is not None else []:
            if finding.code in self._told:
                continue
            self._told.add(finding.code)
            if callable(self._on_finding):
                self._on_finding(finding)
            elif self._on_finding == "raise" and not ending:
                raise GradlensError(f"{finding.claim} ({finding.code})")
            elif self._on_finding == "log" and not ending:  # the verdict has just said it
                self._say(f"gradlens: {finding.claim} ({finding.code})")


class Watching:
    """What a callback of any trainer is made with, and the session of the training that runs.

    Args:
        out: run folder to write; None keeps the recording in memory, as ``callback.lens.recording``.
        every: record every n-th step; by default as many as ``cost``, 2 % of the time, allows, and what follows events.
        on_finding: what becomes of the cause of what goes wrong while it trains: "log", "raise" (a ``GradlensError``),
            or a function that is called with it; once a code. Looking takes at most 2 % of the time.
        options: of ``gradlens.attach``; ``send`` is used on the process of rank 0.

    Raises:
        GradlensError: on_finding is something else; when training begins, what ``gradlens.attach`` refuses.
    """

    def __init__(
        self,
        out: str | Path | None = None,
        every: int | Literal["auto"] = "auto",
        on_finding: OnFinding = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._asked = {"out": out, "every": every, **options}
        self._on_finding = checked(on_finding)
        self._session: Session | None = None

    @property
    def lens(self) -> Lens | None:
        """The lens of the training that runs, or ran last; None before the first."""
        return None if self._session is None else self._session.lens

    def _begin(self, model: nn.Module, step: int, say: Callable[[str], object], judges: bool, **given: Any) -> None:
        """Attach to a model whose next step has this number.

        Args:
            model: as it is trained, wrapped.
            step: the number.
            say: puts a sentence into the trainer's log.
            judges: whether this process does.
            given: options of ``attach`` that the trainer knows.
        """
        lens = attach(model, **given, **(self._asked if judges else self._asked | {"send": None}))
        lens.start_at(step)
        self._session = Session(lens, say, self._on_finding, judges)

    def _end(self, status: str) -> None:
        """End the session, if there is one."""
        if self._session is not None:
            self._session.end(status)


def checked(on_finding: Any) -> OnFinding:
    """Return what becomes of findings.

    Raises:
        GradlensError: it is no function, and not "log" or "raise".
    """
    if on_finding in (None, "log", "raise") or callable(on_finding):
        return on_finding  # type: ignore[no-any-return]
    raise GradlensError(
        f'on_finding must be a function of a finding, "log", "raise", or None; got {on_finding!r:.100}.'
    )
