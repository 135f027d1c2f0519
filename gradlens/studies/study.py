"""What a study is: a paper's experiment as a grid of training runs, at several budgets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradlens.errors import GradlensError, UnknownNameError
from gradlens.studies.budget import Budget, Setting
from gradlens.tasks import TASKS
from gradlens.training.grid import Run
from gradlens.training.trainer import choose_device

_WATCH = ("norms", "blocks", "params")


@dataclass(frozen=True, kw_only=True)
class Study:
    """One entry of ``STUDIES``.

    Attributes:
        name: its name in ``STUDIES``.
        title: of the paper.
        reference: authors, year, arXiv number.
        norms: the norms under study, in the order of the paper's table.
        tasks: those it runs by default; ``budgets`` may know more.
        budgets: name to what is trained how long on each task.
        watch: what the lens records besides norms, blocks and parameters, by norm.
    """

    name: str
    title: str
    reference: str
    norms: tuple[str, ...]
    tasks: tuple[str, ...]
    budgets: Mapping[str, Budget]
    watch: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def budget(self, name: str) -> Budget:
        """Return a budget.

        Raises:
            UnknownNameError: there is none of this name.
        """
        if name not in self.budgets:
            raise UnknownNameError("budget", name, self.budgets)
        return self.budgets[name]

    def runs(self, budget: str, tasks: Sequence[str] = (), seeds: int | None = None, device: str = "auto") -> list[Run]:
        """List the training runs, seed by seed, so that a grid cut short has every task with some seeds.

        Args:
            budget: name in ``budgets``.
            tasks: some of the budget's; by default ``self.tasks``.
            seeds: runs of each norm on each task; by default the budget's.
            device: ``"auto"`` or a name that torch knows.

        Raises:
            UnknownNameError: there is no such budget or task.
            GradlensError: a task is given twice, or there is no seed.
        """
        chosen, count = self.budget(budget), self.budget(budget).seeds if seeds is None else seeds
        tasks = tuple(tasks) or self.tasks
        for task in tasks:
            if task not in chosen.settings:
                raise UnknownNameError(f"task of {self.name}", task, chosen.settings)
        if len(set(tasks)) < len(tasks):
            raise GradlensError(f"Tasks must differ; got {', '.join(tasks)}. Leave one out.")
        if count < 1:
            raise GradlensError(f"A study needs 1 seed or more; got {count}.")
        return [
            self._run(task, norm, seed, chosen.settings[task], device)
            for seed in range(count)
            for task in tasks
            for norm in self.norms
        ]

    def check(self, runs: Sequence[Run]) -> None:
        """Load every task and build every model, so that what is missing is said before hours of training.

        Raises:
            GradlensError: data or a package is missing, the message names all of it; or there is no such device.
        """
        for device in {run.config.device for run in runs}:
            choose_device(device)
        missing = []
        for name in dict.fromkeys(run.task for run in runs):
            try:
                task: Any = TASKS[name]()
                for run in {run.variant: run for run in runs if run.task == name}.values():
                    task.model(run.variant, **run.size)
            except GradlensError as error:
                missing.append(f"{name}: {error}")
        if missing:
            said = "\n".join(f"  {text}" for text in missing)
            raise GradlensError(f"The study {self.name} needs its data; for these tasks it is not ready:\n{said}")

    def _run(self, task: str, norm: str, seed: int, setting: Setting, device: str) -> Run:
        variant = setting.arrangement if norm == "layernorm" else f"{setting.arrangement}/{norm}"
        return Run(
            key=f"{task}/{norm}/seed-{seed}",
            label=f"{task}, {variant}, seed {seed}",
            task=task,
            variant=variant,
            size=setting.size,
            config=setting.config(seed, device),
            watch=(*_WATCH, *self.watch.get(norm, ())),
        )
