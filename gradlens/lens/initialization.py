"""Measuring a model at initialization: one forward and one backward pass a seed, no training."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import torch
from torch import Tensor, nn

from gradlens.batches import blaming, run_model, to_device, token_facts
from gradlens.errors import GradlensError, ModelError, NothingFoundError
from gradlens.lens.lens import Lens
from gradlens.lens.provenance import provenance
from gradlens.lens.sinks import MemorySink, open_sink
from gradlens.outputs import loss_of, trainable
from gradlens.recording import Recording

LossFn: TypeAlias = Callable[[Any, Any], Tensor]
#: From model, batch, loss and seed to rows of the table ``probes`` without their step.
Probe: TypeAlias = Callable[[nn.Module, Any, LossFn | None, int], Iterable[Mapping[str, Any]]]


def at_init(
    build: Callable[[], nn.Module],
    batches: Any,
    loss_fn: LossFn | None = None,
    seeds: int | Iterable[int] = 10,
    *,
    out: str | Path | None = None,
    label: str | None = None,
    device: str | torch.device = "cpu",
    watch: Iterable[str] = ("norms", "blocks", "params"),
    meta: Mapping[str, Any] | None = None,
    on_seed: Callable[[int, int], None] | None = None,
    without_norms: bool = False,
    probe: Probe | None = None,
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
        probe: called with (model, batch, loss_fn, seed) for each seed after its backward pass; the rows it returns
            are those of the table ``probes``, without their step.

    Returns:
        A recording whose "steps" are the seeds.

    Raises:
        ModelError: build returns no module, all its parameters are frozen, the model cannot take the batch, or the
            loss is not one number with a gradient.
        NothingFoundError: the model has no normalization.
    """
    seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not seeds:
        raise GradlensError("at_init needs at least one seed; got none.")
    gathered = open_sink(out, {"kind": "init", "seeds": seeds, **provenance()}, rank=0)
    status, tokens = "interrupted", []
    try:
        watch, where = tuple(watch), torch.device(device)
        one_seed = partial(_one_seed, build, loss_fn, where, watch=watch, without_norms=without_norms, probe=probe)
        with torch.random.fork_rng():
            for index, seed in enumerate(seeds):
                torch.manual_seed(seed)
                sink, facts = one_seed(_pick(batches, seed, index), index, seed)
                for table, frame in sink.frames().items():
                    if table != "sites" or index == 0:
                        gathered.append(table, {str(name): column for name, column in frame.items()})
                if index == 0:
                    seen = {name: sink.meta.get(name, {}) for name in ("audit", "structure")}
                    gathered.annotate({**facts, "label": label or facts["model"]["family"], **seen, **(meta or {})})
                tokens.append(facts["tokens"])
                if on_seed is not None:
                    on_seed(index + 1, len(seeds))
        gathered.annotate({"tokens": _means(tokens)})
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
    loss_fn: LossFn | None,
    device: torch.device,
    batch: Any,
    index: int,
    seed: int,
    *,
    watch: tuple[str, ...],
    without_norms: bool,
    probe: Probe | None,
) -> tuple[MemorySink, dict[str, Any]]:
    """Build, run forward and backward once, and return what was recorded with facts about the model."""
    model = build()
    if not isinstance(model, nn.Module):
        raise ModelError(f"build must return a torch.nn.Module; got {type(model).__name__}.")
    trainable(model)
    model.to(device)
    batch = to_device(batch, device)
    sink = MemorySink({})
    with Lens(model, sink, every=1, watch=watch) as lens:
        lens.start_at(index)
        with blaming(model, batch):
            output = run_model(model, batch)
            loss, origin = loss_of(output, batch, loss_fn)
            loss.backward()  # type: ignore[no-untyped-call]
        if not (lens.model_sites or without_norms):  # some are told only when they run
            raise NothingFoundError(
                f"A model needs normalizations to look at; {type(model).__name__} has none that is known. "
                "Register its own with gradlens.register_norm(cls, axes=-1)."
            )
        lens.step(loss=loss, seed=float(seed))
    if lens.stopped:
        raise GradlensError(lens.stopped)
    if probe is not None:
        rows = [{"step": index, **row} for row in probe(model, batch, loss_fn, seed)]
        if rows:
            sink.append("probes", {str(name): column for name, column in pd.DataFrame(rows).items()})
    tokens = token_facts(batch, getattr(model, "pad", None))
    return sink, {"model": describe(model), "loss": origin, "device": str(device), "tokens": tokens}


def _means(tokens: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """Return the means over seeds of each tensor's facts."""
    together = list(zip(*tokens, strict=False))
    return [{name: sum(one[name] for one in seeds) / len(seeds) for name in seeds[0]} for seeds in together]


def describe(model: nn.Module) -> dict[str, Any]:
    """Return what is known of a model: its own description or its class' name, and the number of its parameters."""
    own = getattr(model, "describe", None)
    known = own() if callable(own) else {"family": type(model).__name__}
    return {**known, "parameters": sum(p.numel() for p in model.parameters())}
