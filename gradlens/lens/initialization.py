"""Measuring a model at initialization: one forward and one backward pass a seed, no training."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.batches import run_model, to_device
from gradlens.errors import GradlensError, ModelError, NothingFoundError
from gradlens.lens.hooks import first_tensor
from gradlens.lens.lens import Lens
from gradlens.lens.provenance import provenance
from gradlens.lens.sinks import MemorySink, open_sink
from gradlens.recording import Recording

#: How the loss was made where the user gave none.
OWN_LOSS = "the output's own .loss"
PROJECTION = "the output's product with a fixed random direction"


def loss_of(output: Any, batch: Any, loss_fn: Callable[[Any, Any], Tensor] | None) -> tuple[Tensor, str]:
    """Return the loss of an output, and in words where it comes from.

    Without ``loss_fn`` it is the output's own ``.loss``, else the product with a fixed random direction of unit
    length (its gradient then has norm one at the output).

    Raises:
        ModelError: the output holds no floating tensor.
    """
    if loss_fn is not None:
        return loss_fn(output, batch), getattr(loss_fn, "__qualname__", "loss_fn")
    own = getattr(output, "loss", None)
    if isinstance(own, Tensor):
        return own, OWN_LOSS
    y = first_tensor(output)
    if y is None:
        raise ModelError(
            f"The model must return a tensor (or something that holds one, or .loss); got {type(output).__name__}. "
            "Return (module, batch, loss_fn) from build."
        )
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
    return (y * (direction / direction.norm())).sum(), PROJECTION


def at_init(
    build: Callable[[], nn.Module],
    batches: Any,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    seeds: int | Iterable[int] = 10,
    *,
    out: str | Path | None = None,
    label: str | None = None,
    device: str | torch.device = "cpu",
    watch: Iterable[str] = ("norms", "blocks", "params"),
    meta: Mapping[str, Any] | None = None,
    on_seed: Callable[[int, int], None] | None = None,
    without_norms: bool = False,
) -> Recording:
    """Record a model at initialization, over several seeds.

    Args:
        build: makes a freshly initialized module; called once a seed, after ``torch.manual_seed(seed)``.
        batches: what the module's forward takes (a tensor, a tuple of arguments, a mapping of keywords); or a list of
            such batches, used in turn; or a function of the seed that returns one.
        loss_fn: (output, batch) to a scalar; without it see ``loss_of``.
        seeds: how many (0, 1, ...), or which.
        out: run folder to write; None keeps the recording in memory.
        label: the name in tables and legends.
        device: where to run.
        watch: as in ``attach``.
        meta: further metadata.
        on_seed: called with (seeds done, seeds) after each.
        without_norms: also measure a model that has no normalization; its blocks and parameters are recorded.

    Returns:
        A recording whose "steps" are the seeds.

    Raises:
        ModelError: build returns no module, or the model cannot take the batch.
        NothingFoundError: the model has no normalization.
    """
    seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not seeds:
        raise GradlensError("at_init needs at least one seed; got none.")
    gathered = open_sink(out, {"kind": "init", "seeds": seeds, **provenance()}, rank=0)
    status = "interrupted"
    try:
        with torch.random.fork_rng():
            for index, seed in enumerate(seeds):
                torch.manual_seed(seed)
                sink, facts = _one_seed(
                    build,
                    _pick(batches, seed, index),
                    loss_fn,
                    torch.device(device),
                    tuple(watch),
                    index,
                    seed,
                    without_norms,
                )
                for table, frame in sink.frames().items():
                    if table != "sites" or index == 0:
                        gathered.append(table, {str(name): column for name, column in frame.items()})
                if index == 0:
                    audit = sink.meta.get("audit", {})
                    gathered.annotate(
                        {**facts, "label": label or facts["model"]["family"], "audit": audit, **(meta or {})}
                    )
                if on_seed is not None:
                    on_seed(index + 1, len(seeds))
        status = "complete"
    finally:
        gathered.close(status)
    return gathered.recording()


def _pick(batches: Any, seed: int, index: int) -> Any:
    if callable(batches):
        return batches(seed)
    return batches[index % len(batches)] if isinstance(batches, list) else batches


def _one_seed(
    build: Callable[[], nn.Module],
    batch: Any,
    loss_fn: Callable[[Any, Any], Tensor] | None,
    device: torch.device,
    watch: tuple[str, ...],
    index: int,
    seed: int,
    without_norms: bool,
) -> tuple[MemorySink, dict[str, Any]]:
    """Build, run forward and backward once, and return what was recorded with facts about the model."""
    model = build()
    if not isinstance(model, nn.Module):
        raise ModelError(f"build must return a torch.nn.Module; got {type(model).__name__}.")
    model.to(device)
    batch = to_device(batch, device)
    sink = MemorySink({})
    with Lens(model, sink, every=1, watch=watch) as lens:
        if not (lens.model_sites or without_norms):
            raise NothingFoundError(
                f"A model needs normalizations to look at; {type(model).__name__} has none that is known. "
                "Register its own with gradlens.register_norm(cls, axes=-1)."
            )
        lens.start_at(index)
        try:
            output = run_model(model, batch)
            loss, origin = loss_of(output, batch, loss_fn)
            loss.backward()  # type: ignore[no-untyped-call]
        except GradlensError:
            raise
        # The model is a stranger's: whatever it raises says something about it and its batch.
        except Exception as error:
            raise ModelError(
                f"The model must take the batch and give a loss; {type(model).__name__} raised "
                f"{type(error).__name__}: {error}. Its batch is {_shape(batch)}."
            ) from error
        lens.step(loss=loss, seed=float(seed))
    describe = getattr(model, "describe", None)
    known = describe() if callable(describe) else {"family": type(model).__name__}
    parameters = sum(p.numel() for p in model.parameters())
    return sink, {"model": {**known, "parameters": parameters}, "loss": origin, "device": str(device)}


def _shape(batch: Any) -> str:
    """Describe a batch for a message."""
    if isinstance(batch, Tensor):
        return f"a {str(batch.dtype).removeprefix('torch.')} tensor {list(batch.shape)}"
    if isinstance(batch, Mapping):
        return "a dict of " + ", ".join(f"{key}: {_shape(value)}" for key, value in batch.items())
    if isinstance(batch, tuple):
        return "a tuple of " + ", ".join(map(_shape, batch))
    return f"a {type(batch).__name__}"
