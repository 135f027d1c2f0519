"""``gradlens.attach``: from a model and a few wishes to a lens."""

import os
import sys
from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import torch
from torch import nn

from gradlens.errors import GradlensError, RecordingError
from gradlens.lens.compiling import unwrapped
from gradlens.lens.guard import warn
from gradlens.lens.lens import Lens
from gradlens.lens.optimizer_facts import optimizer_facts
from gradlens.lens.provenance import provenance
from gradlens.lens.sending import SendingSink, checked
from gradlens.lens.sinks import Sink, open_sink
from gradlens.lens.world import World, class_of, world_of
from gradlens.recording.folder import FINISHED, read_manifest, refused


def attach(
    model: nn.Module,
    *,
    out: str | Path | None = None,
    every: int | Literal["auto"] = 1,
    watch: Iterable[str] = ("norms", "blocks", "params"),
    optimizer: torch.optim.Optimizer | None = None,
    scaler: Any = None,
    label: str | None = None,
    functional: bool = False,
    strict: bool = False,
    placement: Mapping[str, str] | None = None,
    cost: float = 0.02,
    send: Any = None,
    keep: Literal["all", "thinned"] = "all",
) -> Lens:
    """Attach a lens to a model: record what its normalizations do to the gradients while it trains.

    The model is left as it was: nothing is added to it but hooks, which ``detach`` removes. The training never ends
    with its recorder: where a step cannot be measured or written (a full disk, a folder that is gone) the lens says so
    on stderr and in the log "gradlens", keeps what it has, removes its hooks, and is silent from then on; a site whose
    hook fails goes silent alone, and the audit names it.

    Args:
        model: any module.
        out: run folder to write; None keeps the recording in memory. An interrupted run in it goes
            on: its steps are numbered on, unless ``lens.start_at`` says where they begin.
        every: record every n-th step; steps between cost little. "auto": the first 32 steps, then as often as ``cost``
            allows, by the lens' own measurement, and in full the 8 steps after an event: a loss passed to ``step`` or a
            recorded gradient norm that leaves its recent range, a value that is not finite, a step that the scaler left
            out, a learning rate that changes twofold, other parameters that are trained. The column ``reason`` of
            ``steps`` names it, the audit says what the cadence came to. Several processes record one step in 16.
        watch: what to record: "norms", "blocks", "params", "updates" (keeps a copy of the weights), "attention" (some
            queries against all keys, once more a call), or regular expressions searched in module paths.
        optimizer: count steps by this optimizer; ``lens.step()`` is then not needed, and a step is written when the
            next one begins. One that wraps another (accelerate's, Lightning's) stands for the one inside.
        scaler: a ``torch.amp.GradScaler``; its factor is divided out of every gradient. By default the one that the
            optimizer's wrapper holds.
        label: the name in tables and legends.
        functional: also record normalizations called as functions (``F.layer_norm`` and its like).
        strict: raise what goes wrong in the lens, instead of going on without it.
        placement: where norms stand, if not where the model's first pass shows: regular expressions searched in their
            paths, to pre_branch, in_branch, post_branch, post_add, final, embed, qk, or unknown.
        send: a tracker, anything with ``log(numbers, step=)``, gets what is recorded of a step as well; a pair of it
            and a regular expression says which: names are such as ``gradlens/norms/layers.0.norm1/rescaling``.
        cost: with ``every="auto"``: the share of the training's time that recording may take.
        keep: "all", or "thinned" for a run of any length in a folder that stays small: the last 2,000 recorded steps
            (up to 4,000 while it is written) are whole; of those before, at most some 4,000 stay at equal distances,
            with the first 32 and, where one process records, 8 recorded steps before and 16 after each event that
            ``every`` names. ``recording.meta["thinned"]`` says from which step on all are there.

    Returns:
        The lens, a context manager.

    Raises:
        GradlensError: model is no module, every < 1, cost not above 0, send is no tracker, keep is neither or needs
            ``out``, or an entry of watch or placement matches nothing.
        RecordingError: out holds something else, a finished run, or is being written.
    """
    optimizer, scaler = _inside(optimizer, scaler)
    _check(model, out, every, cost, optimizer)
    _check_keep(keep, out)
    sent = None if send is None else checked(send)
    watch = (watch,) if isinstance(watch, str) else tuple(watch)
    _refuse(model)
    # The working directory may be another one when the next step is written.
    folder, world = None if out is None else _absolute(out), world_of(model)
    name = class_of(model).__name__ if out is None else Path(out).name
    meta = _meta(model, label or name, every, watch, world) | ({} if keep == "all" else {"keep": keep})
    if optimizer is not None:
        meta["optimizer"] = optimizer_facts(unwrapped(model), optimizer)
    if folder is not None:
        _check_earlier(folder, meta)
    writer = (os.getpid(), str(folder), world.rank)
    _take_over(writer)
    sink: Sink = open_sink(folder, meta, world.rank)
    if sent is not None:
        sink = SendingSink(sink, *sent, strict)
    try:
        lens = Lens(
            model, sink, every=every, watch=watch, optimizer=optimizer, scaler=scaler, functional=functional,
            strict=strict, world=world, step=sink.next_step(), placement=placement,
            cost=cost, thinned=keep == "thinned",
        )  # fmt: skip
    except BaseException:
        sink.close("interrupted")
        raise
    if folder is not None:
        _writers[writer] = lens
    return lens


def _meta(model: nn.Module, label: str, every: int | str, watch: tuple[str, ...], world: World) -> dict[str, Any]:
    """Return what the manifest says of a recording when it begins."""
    meta: dict[str, Any] = {
        "kind": "attached",
        "label": label,
        "model": {"family": class_of(model).__name__, "parameters": sum(p.numel() for p in model.parameters())},
        "every": every,
        "watch": list(watch),
        "frozen": [name for name, p in unwrapped(model).named_parameters() if not p.requires_grad],
        **provenance(),
    }
    if world.size > 1:
        meta["processes"] = {"world": world.size, "data": len(world.data), "recorded": 1}
    return meta


#: The lenses of this program, by process, run folder and the process' number.
_writers: "WeakValueDictionary[tuple[int, str, int], Lens]" = WeakValueDictionary()


def _absolute(out: str | os.PathLike[str]) -> Path:
    try:
        return Path(out).resolve()
    except OSError as error:
        raise RecordingError(refused(Path(out), error)) from error


def _take_over(writer: tuple[int, str, int]) -> None:
    """Detach the lens that this process forgot, as of a notebook that was interrupted, and runs again."""
    forgotten = _writers.get(writer)
    if forgotten is not None and forgotten.hand_over():
        warn(
            f"gradlens: the lens that was still attached and recording in {writer[1]} is detached: the new one goes on "
            "with the run. Use `with gradlens.attach(...)`, or call detach(), where that is not wanted."
        )


def _inside(optimizer: Any, scaler: Any) -> tuple[Any, Any]:
    """Return the optimizer inside of wrappers that have no hooks, and the scaler that one holds where none is given."""
    while "_optimizer_step_pre_hooks" not in getattr(optimizer, "__dict__", {}):
        inner = getattr(optimizer, "optimizer", None)
        if not isinstance(inner, torch.optim.Optimizer):
            break
        scaler = getattr(optimizer, "scaler", None) if scaler is None else scaler
        optimizer = inner
    return optimizer, scaler


def _check(model: Any, out: Any, every: Any, cost: float, optimizer: Any) -> None:
    """Refuse arguments of another kind."""
    if not isinstance(model, nn.Module):
        raise GradlensError(f"attach needs a torch.nn.Module; got {type(model).__name__}. Pass the model itself.")
    if every != "auto" and (isinstance(every, str) or every < 1):
        raise GradlensError(f"every must be 1 or more, or 'auto'; got {every!r}.")
    if not 0 < cost < inf:
        raise GradlensError(f"cost must be a share of the time, above 0; got {cost}.")
    if out is not None and not isinstance(out, str | os.PathLike):
        raise GradlensError(f"out must be the path of a run folder, or None; got {out!r}.")
    if optimizer is not None and not isinstance(getattr(optimizer, "_optimizer_step_pre_hooks", None), dict):
        raise GradlensError(
            f"optimizer must be a torch.optim.Optimizer; got {type(optimizer).__name__}. "
            "Pass the one inside of it, or call lens.step() after each step."
        )


def _check_keep(keep: Any, out: Any) -> None:
    """Refuse another wish of what is kept."""
    if keep not in ("all", "thinned"):
        raise GradlensError(f"keep must be 'all' or 'thinned'; got {keep!r}.")
    if keep == "thinned" and out is None:
        raise GradlensError("keep='thinned' thins a run folder; without out= all is kept in memory. Pass out=.")


def _check_earlier(folder: Path, meta: Mapping[str, Any]) -> None:
    """Refuse to go on with an interrupted run of something else."""
    if not (folder / "manifest.json").exists():
        return
    there = read_manifest(folder)
    numbers = {"parameters": (there.get("model") or {}).get("parameters"), "every": there.get("every")}
    now = {"parameters": meta["model"]["parameters"], "every": meta["every"]}
    other = [f"{name} {was}, now {now[name]}" for name, was in numbers.items() if was not in (None, now[name])]
    if other and there.get("status") not in FINISHED:
        raise RecordingError(
            f"An interrupted run goes on with the same model and cadence; in {folder} there were other ones: "
            f"{'; '.join(other)}. Choose another folder, or delete this one."
        )


def _refuse(model: nn.Module) -> None:
    """Refuse what cannot be recorded, with what to do instead."""
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is not None and getattr(dynamo.config, "compiled_autograd", False):
        raise GradlensError(
            "A lens cannot follow compiled autograd: its backward pass runs no hooks of Python. "
            "Set torch._dynamo.config.compiled_autograd to False while you record."
        )
    for path, module in model.named_modules():
        where = f"{type(module).__name__} at {path!r}" if path else type(module).__name__
        if isinstance(module, nn.DataParallel):
            raise GradlensError(
                f"A lens cannot follow {where}: its replicas are made anew for each forward pass and run in threads. "
                "Use DistributedDataParallel, or attach to the module inside on one device."
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise GradlensError(
                f"A lens cannot look into {where}: torch.jit has compiled its Python away. Attach before scripting."
            )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise GradlensError(
            "attach needs a model that knows its sizes; lazy modules do not before their first forward pass. "
            "Run one forward pass first."
        )
