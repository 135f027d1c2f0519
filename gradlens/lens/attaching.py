"""``gradlens.attach``: from a model and a few wishes to a lens."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradlens.errors import GradlensError
from gradlens.lens.lens import Lens
from gradlens.lens.provenance import provenance
from gradlens.lens.sinks import open_sink


def attach(
    model: nn.Module,
    *,
    out: str | Path | None = None,
    every: int = 1,
    watch: Iterable[str] = ("norms", "blocks", "params"),
    optimizer: torch.optim.Optimizer | None = None,
    scaler: Any = None,
    label: str | None = None,
    functional: bool = False,
) -> Lens:
    """Attach a lens to a model: record what its normalizations do to the gradients while it trains.

    The model is left as it was: nothing is added to it but hooks, which ``detach`` removes.

    Args:
        model: any module.
        out: run folder to write; None keeps the recording in memory. An interrupted run in it goes
            on: its steps are numbered on, unless ``lens.start_at`` says where they begin.
        every: record every n-th step; steps between cost nothing.
        watch: what to record: "norms", "blocks", "params", "updates" (keeps a copy of the weights), or regular
            expressions searched in module paths.
        optimizer: count steps by this optimizer; ``lens.step()`` is then not needed, and a step is written when the
            next one begins.
        scaler: a ``torch.amp.GradScaler``; its factor is divided out of every gradient.
        label: the name in tables and legends.
        functional: also record normalizations called as functions (``F.layer_norm`` and its like).

    Returns:
        The lens, a context manager.

    Raises:
        GradlensError: model is no module, every < 1, or an entry of watch matches nothing.
        RecordingError: out holds something else, a finished run, or is being written.
    """
    if not isinstance(model, nn.Module):
        raise GradlensError(f"attach needs a torch.nn.Module; got {type(model).__name__}. Pass the model itself.")
    if every < 1:
        raise GradlensError(f"every must be 1 or more; got {every}.")
    watch = (watch,) if isinstance(watch, str) else tuple(watch)
    meta: dict[str, Any] = {
        "kind": "attached",
        "label": label or (Path(out).name if out is not None else type(model).__name__),
        "model": {"family": type(model).__name__, "parameters": sum(p.numel() for p in model.parameters())},
        "every": every,
        "watch": list(watch),
        **provenance(),
    }
    rank = torch.distributed.get_rank() if _distributed() else 0
    sink = open_sink(out, meta, rank)
    try:
        lens = Lens(
            model,
            sink,
            every=every,
            watch=watch,
            optimizer=optimizer,
            scaler=scaler,
            functional=functional,
            rank=rank,
        )
        lens.start_at(sink.next_step())
        return lens
    except BaseException:
        sink.close("interrupted")
        raise


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
