"""What a study is: a paper's experiment as a grid of jobs, at several budgets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from gradlens.errors import GradlensError, UnknownNameError
from gradlens.lab.runs.jobs import ZooJob
from gradlens.lab.studies.cell import Cell
from gradlens.lab.tasks import TASKS
from gradlens.lab.training.trainer import choose_device


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One size of a study.

    Attributes:
        about: what it is for and how long it takes.
        cells: in the order in which they are begun.
    """

    about: str
    cells: tuple[Cell, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts its cells belong to."""
        return tuple(dict.fromkeys(cell.part for cell in self.cells))


@dataclass(frozen=True, kw_only=True)
class Study:
    """One entry of ``STUDIES``.

    Attributes:
        name: its name in ``STUDIES``.
        title: of the paper.
        reference: authors, year, arXiv number.
        parts: those it runs by default; a budget may know more.
        budgets: name to what is trained how long.
        part: what a part is in this study, for messages.
    """

    name: str
    title: str
    reference: str
    parts: tuple[str, ...]
    budgets: Mapping[str, Budget]
    part: str = "part"

    def budget(self, name: str) -> Budget:
        """Return a budget.

        Raises:
            UnknownNameError: there is none of this name.
        """
        if name not in self.budgets:
            raise UnknownNameError("budget", name, self.budgets)
        return self.budgets[name]

    def jobs(
        self, budget: str, parts: Sequence[str] = (), seeds: int | None = None, device: str = "auto"
    ) -> list[ZooJob]:
        """List the jobs, seed by seed, so that a grid cut short has every cell with some seeds.

        Args:
            budget: name in ``budgets``.
            parts: some of the budget's; by default ``self.parts``.
            seeds: training runs of each cell; by default the cell's.
            device: ``"auto"`` or a name that torch knows.

        Raises:
            UnknownNameError: there is no such budget or part.
            GradlensError: a part is given twice, or there is no seed.
        """
        chosen, parts = self.budget(budget), tuple(parts) or self.parts
        for part in parts:
            if part not in chosen.parts:
                raise UnknownNameError(f"{self.part} of {self.name}", part, chosen.parts)
        if len(set(parts)) < len(parts):
            raise GradlensError(f"{self.part.capitalize()}s must differ; got {', '.join(parts)}. Leave one out.")
        if seeds is not None and seeds < 1:
            raise GradlensError(f"A study needs 1 seed or more; got {seeds}.")
        of_cells = [cell.jobs(seeds, device) for part in parts for cell in chosen.cells if cell.part == part]
        return [job for jobs in zip_longest(*of_cells) for job in jobs if job is not None]

    def check(self, jobs: Sequence[ZooJob]) -> None:
        """Load every task and build every model, so that what is missing is said before hours of training.

        Raises:
            GradlensError: data or a package is missing, the message names all of it; or there is no such device.
        """
        for device in {job.runs_on for job in jobs}:
            choose_device(device)
        missing = []
        for name in dict.fromkeys(job.task for job in jobs):
            try:
                task: Any = TASKS[name]()
                for job in {job.variant: job for job in reversed(jobs) if job.task == name}.values():
                    task.model(job.variant, **job.size)
            except GradlensError as error:
                missing.append(f"{name}: {error}")
        if missing:
            said = "\n".join(f"  {text}" for text in missing)
            raise GradlensError(f"The study {self.name} needs its data; for these tasks it is not ready:\n{said}")
