"""What ``gradlens compare`` takes: a zoo variant, a run folder, a model of the user's, or one of transformers.

Torch is imported only for the last two, so that reports on finished runs start without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from gradlens.errors import GradlensError, RecordingError
from gradlens.lab.models.variants import parse_variant, variant_name
from gradlens.lab.operands.subject import AtInit, Subject
from gradlens.lab.training.settings import Settings
from gradlens.recording.folder import FOLDERS_OF_RUNS, read_manifest

if TYPE_CHECKING:
    from gradlens.lab.operands.huggingface_model import HuggingFaceModel
    from gradlens.lab.operands.user_model import UserModel
    from gradlens.lab.tasks.task import Task


@dataclass(frozen=True)
class Variant:
    """A model of the zoo, ``arrangement[/norm]``.

    Attributes:
        label: its shortest name: ``pre-ln`` for ``pre-ln/layernorm``, ``rezero`` for ``rezero/none``.
    """

    label: str

    def subject(self, task: "Task", settings: Settings) -> Subject:
        """Prepare it for measuring and training.

        Raises:
            ModelError: the sizes do not fit together.
        """
        build = partial(task.model, self.label, **settings.size)
        build()  # what is wrong with the sizes is said before anything is written
        return Subject(
            label=self.label,
            variant=self.label,
            task=task,
            build=build,
            at_init=AtInit(build, partial(settings.batch, task), task.loss),
            trainable=True,
            note="",
            facts={"operand": self.label},
        )


@dataclass(frozen=True)
class RunFolder:
    """A recording that exists."""

    path: Path

    @property
    def label(self) -> str:
        """Where it is."""
        return str(self.path)


Operand: TypeAlias = "Variant | RunFolder | UserModel | HuggingFaceModel"


def parse(texts: Sequence[str], arguments: Sequence[str] = (), batch: str | None = None) -> list[Operand]:
    """Turn the operands of a command into objects.

    A name of the zoo goes before a folder of the same name, which can be given as ``./pre-ln``.

    Args:
        texts: as they were typed; a folder of a comparison stands for all its runs.
        arguments: ``key=value`` keyword arguments for the user's models, settings for those of transformers.
        batch: ``pkg.mod:fn`` that returns a batch for them.

    Raises:
        GradlensError: one is none of the four or cannot be loaded, two are the same, or arguments or a batch
            are given and no operand is a model of the user's.
    """
    operands = [operand for text in texts for operand in _parse(text, arguments, batch)]
    if (arguments or batch) and not any(is_users(text) for text in texts):
        raise GradlensError(
            "-m and --batch are for a model of your own, named pkg.mod:build or file.py:build, and for hf:...; "
            f"none of {', '.join(texts)} is one. Leave them out."
        )
    labels = [operand.label for operand in operands]
    operands = [
        operand if isinstance(operand, Variant | RunFolder) or labels.count(operand.label) == 1 else operand.in_full()
        for operand in operands
    ]
    for index, operand in enumerate(operands):
        if operand in operands[:index]:
            raise GradlensError(f"Operands must differ; {operand.label!r} is given twice. Leave one out.")
    return operands


def is_users(text: str) -> bool:
    """Whether an operand names a function of the user's, or a model of transformers."""
    return ":" in text and not Path(text).exists()


def runs_in(folder: Path) -> list[Path]:
    """Return the run folders that a folder stands for: itself, or those of a comparison that were begun.

    Raises:
        RecordingError: it is missing, foreign or damaged, or a comparison without a run.
    """
    manifest = read_manifest(folder)
    if manifest.get("kind") not in FOLDERS_OF_RUNS:
        return [folder]
    runs = [folder / str(run) for run in manifest.get("runs", ())]
    begun = [run for run in runs if (run / "manifest.json").exists()]
    if not begun:
        what = FOLDERS_OF_RUNS[manifest["kind"]]
        raise RecordingError(f"{folder} is a {what} in which no run was begun yet. Run its command again.")
    return begun


def _parse(text: str, arguments: Sequence[str], batch: str | None) -> list[Operand]:
    if text.startswith("hf:"):
        from gradlens.lab.operands.huggingface_model import HuggingFaceModel  # imports torch

        return [HuggingFaceModel.load(text, arguments, batch)]
    if is_users(text):
        from gradlens.lab.operands.user_model import UserModel  # imports torch

        return [UserModel.load(text, arguments, batch)]
    path = Path(text)
    if text.endswith(".py"):
        raise GradlensError(f"A model is named with its function, file.py:build; got {text!r}. Add :build.")
    try:
        arrangement, norm = parse_variant(text)
    except GradlensError as unknown:
        if path.exists():
            return [RunFolder(run) for run in runs_in(path)]
        raise GradlensError(
            f"{unknown} (An operand is a variant of the zoo, see `gradlens list`; a run folder, and there is "
            f"none at {text}; a model of yours, pkg.mod:build or file.py:build; or one of transformers, hf:...)"
        ) from unknown
    return [Variant(variant_name(arrangement, norm))]
