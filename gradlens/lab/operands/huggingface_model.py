"""A model of Hugging Face transformers as an operand: ``hf:TYPE``, ``hf:FOLDER`` or ``hf:config.json``."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.batches import run_model
from gradlens.errors import ModelError, one_line
from gradlens.lab.models.huggingface import Source
from gradlens.lab.models.huggingface_batch import make_batch
from gradlens.lab.operands.importing import called_for_batch, load_callable, reloaded
from gradlens.lab.operands.keywords import keywords
from gradlens.lab.operands.subject import AtInit, Subject
from gradlens.lab.tasks.task import Task
from gradlens.lab.training.settings import Settings

PREFIX = "hf:"


@dataclass(frozen=True)
class HuggingFaceModel:
    """One operand of this kind.

    Attributes:
        source: where it comes from.
        arguments: settings of its configuration that ``-m`` gave.
        batch_fn: makes a batch; None where one is made from the configuration.
        given: the texts of its settings and of its batch, by which it travels to another process.
        whole_label: whether the label is the whole path, for another operand has the same short one.
    """

    source: Source
    arguments: Mapping[str, Any] = field(default_factory=dict)
    batch_fn: Callable[[], Any] | None = None
    given: tuple[tuple[str, ...], str | None] = ((), None)
    whole_label: bool = False

    @classmethod
    def load(cls, spec: str, pairs: Sequence[str] = (), batch: str | None = None) -> "HuggingFaceModel":
        """Find what a spec names.

        Args:
            spec: as it was given, with the prefix.
            pairs: ``key=value`` texts for its configuration.
            batch: spec of a function without arguments that returns a batch.

        Raises:
            GradlensError: there is no such model, or its configuration has no such setting.
        """
        source = Source.find(spec.removeprefix(PREFIX))
        arguments = keywords(_signed(source.settings()), spec, pairs) if pairs else {}
        return cls(source, arguments, None if batch is None else load_callable(batch), (tuple(pairs), batch))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return reloaded, (HuggingFaceModel, PREFIX + self.source.text, *self.given, self.whole_label)

    @property
    def label(self) -> str:
        """The name in tables and legends; a trained network is called so."""
        path = Path(self.source.text)
        named = path.parent if path.name == "config.json" and path.parent.name else path
        text = self.source.text if self.whole_label or self.source.config_file is None else named.name
        return f"{PREFIX}{text}{' (trained)' if self.source.weights else ''}"

    def in_full(self) -> "HuggingFaceModel":
        """Return the same with the whole path as its label, where another operand shares the short one."""
        return replace(self, whole_label=True)

    def subject(self, task: Task, settings: Settings) -> Subject:
        """Prepare it for measuring, and for training where it is a language model over the task's tokens.

        Raises:
            ModelError: it cannot be built, is too large for this machine, or there is no batch to run it on.
        """
        config = self.source.configure(self.arguments)
        cls = self.source.model_class(config)
        self._refuse_too_large(self.source.parameters(cls, config))
        build = partial(self.source.build, cls, config)
        if self.batch_fn is None:
            sizes = {"batch_size": settings.batch_size, "length": settings.length}
            own = partial(_seeded_batch, cls, config, sizes)
            own(settings.seed)  # what is wrong with it is said before anything is written
        else:
            own = partial(called_for_batch, self.batch_fn)
        why_not = self._why_not_trained(config, build, task, settings)
        on_task = not why_not and self.batch_fn is None
        at_init = AtInit(build, partial(settings.batch, task), task.loss) if on_task else AtInit(build, own)
        state = "with the weights in its folder" if self.source.weights else "at initialization"
        return Subject(
            label=self.label,
            variant=self.label,
            task=task,
            build=build,
            at_init=at_init,
            trainable=not why_not,
            note=f"{self.label} is measured {state} only: {why_not}." if why_not else "",
            facts=self._facts(cls),
        )

    def _facts(self, cls: type[nn.Module]) -> dict[str, Any]:
        """Return what tells this operand from another, the state of its files included."""
        plain = {k: v if isinstance(v, int | float | bool) else str(v) for k, v in self.arguments.items()}
        return {"operand": self.label, "class": cls.__name__, "arguments": plain, **self.source.facts()}

    def _refuse_too_large(self, parameters: int | None) -> None:
        """Say that a model does not fit, rather than being killed while it is built."""
        # Weights and their gradients in float32, not counting activations.
        needed, there = 8 * (parameters or 0), _memory()
        if there and needed > there:
            raise ModelError(
                f"{self.label} must fit into memory with its gradients; its {parameters:,} parameters take "
                f"{needed / 1e9:.0f} GB of {there / 1e9:.0f} GB. Set its sizes, such as "
                "-m num_hidden_layers=4 -m hidden_size=256 -m intermediate_size=1024."
            )

    def _why_not_trained(self, config: Any, build: Callable[[], nn.Module], task: Task, settings: Settings) -> str:
        """Return why it cannot be trained on the task; empty where it can."""
        vocab = task.describe().get("vocab")
        own = getattr(config, "vocab_size", None)
        if vocab is None or own != vocab:
            hint = f"; -m vocab_size={vocab} sets it" if vocab and own else ""
            return f"its vocab_size is not the number of tokens of the task {task.name!r}{hint}"
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            batch = settings.batch(task, settings.seed)
            try:
                model = build().eval()
                output = run_model(model, batch)
                task.loss(output, batch)
                causal = isinstance(batch, Tensor) and _is_causal(model, batch, output.logits)
            except Exception as error:  # whatever its forward raises means that it does not fit
                return f"it does not take the batches of the task {task.name!r} ({one_line(error)})"
        return "" if causal else "it sees the tokens that it is to predict"


def _is_causal(model: nn.Module, tokens: Tensor, logits: Tensor) -> bool:
    """Whether what is said of the first half of the tokens [B, T] stays as it is where the second half changes."""
    half = tokens.shape[1] // 2
    changed = tokens.clone()
    changed[:, half:] = (changed[:, half:] + 1) % logits.shape[-1]
    difference = (model(changed).logits - logits)[:, :half].abs().max()
    # Zero but for rounding; an untrained BERT's is a few ten thousandths.
    return bool(difference < 1e-5 * logits.abs().max())


def _signed(settings: Mapping[str, Any]) -> Callable[..., None]:
    """Return a function that takes the settings by keyword, typed by the values they have now."""

    def takes(**values: Any) -> None:
        """Do nothing: it is read, not called."""

    kind = inspect.Parameter.KEYWORD_ONLY
    takes.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind, default=value) for name, value in settings.items()]
    )
    return takes


def _seeded_batch(cls: type[nn.Module], config: Any, sizes: Mapping[str, int], seed: int) -> dict[str, Any]:
    return dict(make_batch(cls, config, seed=seed, **sizes))


def _memory() -> int:
    """Return the bytes of memory of this machine; 0 where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no such question on this system
        return 0
