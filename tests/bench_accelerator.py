"""What the lens costs on an accelerator: real sizes in bfloat16, eager and compiled. Run: ``make bench-gpu``.

The table of `bench_overhead`, its steps interleaved in the same way, and how many kernels the profiler saw launched in
a plain step and in a recorded one. It ends by itself after eight minutes, with what it has. ``--device cpu --tiny``
tries its logic where there is no accelerator; its launches are then operations.
"""

import argparse
import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from tests.bench_overhead import Run, compare
from tests.bench_subjects import Case

#: Seconds without which a compiled case is not begun: two models are compiled for it.
_TO_COMPILE = 100


def _language_model(name: str, tiny: bool) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if name == "GPT-2 124M":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 64} if tiny else {}
        return GPT2LMHeadModel(GPT2Config(**sizes, use_cache=False))
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 2816}
    if tiny:
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=64 if tiny else 32_000, use_cache=False))


def _resnet(tiny: bool) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]} if tiny else {}
    return ResNetForImageClassification(ResNetConfig(**sizes, num_labels=10))


def _cases(device: torch.device, tiny: bool) -> Iterator[tuple[str, Case]]:
    """Yield all cases, compiled ones last: they take longest to begin."""

    def on(model: nn.Module) -> nn.Module:
        return model.to(device, torch.bfloat16)

    def tokens(batch: int, vocab: int) -> Callable[[int], Any]:
        length = 16 if tiny else 1024

        def make(seed: int) -> dict[str, torch.Tensor]:
            ids = torch.randint(0, vocab, (batch, length), generator=torch.Generator().manual_seed(seed)).to(device)
            return {"input_ids": ids, "labels": ids}

        return make

    def images(seed: int) -> dict[str, torch.Tensor]:
        draw = torch.Generator().manual_seed(seed)
        shape = (2, 3, 32, 32) if tiny else (64, 3, 224, 224)
        labels = torch.randint(0, 10, shape[:1], generator=draw).to(device)
        return {"pixel_values": torch.randn(shape, generator=draw).to(device, torch.bfloat16), "labels": labels}

    parts: list[tuple[str, Callable[[], nn.Module], Callable[[int], Any]]] = [
        ("GPT-2 124M", lambda: on(_language_model("GPT-2 124M", tiny)), tokens(8, 64 if tiny else 50_257)),
        ("ResNet-50", lambda: on(_resnet(tiny)), images),
        ("Llama 350M", lambda: on(_language_model("Llama 350M", tiny)), tokens(4, 64 if tiny else 32_000)),
    ]
    for compiled in (False, True):
        for name, build, batch in parts:
            yield f"{name}{', compiled' * compiled}", Case(build, batch, limit=1.05, compiled=compiled)


def launches(case: Case, kind: str, device: torch.device, folder: Path) -> int:
    """Count the kernels of one step; without an accelerator torch's operations."""
    run = Run(case, kind, folder)
    for index in range(3):
        run.step(case.batch(index))
    on_host = device.type == "cpu"
    activities = [ProfilerActivity.CPU] if on_host else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities) as seen:
        run.step(case.batch(3))
    if run.lens is not None:
        run.lens.detach()
    events = seen.events() or ()
    if on_host:
        return sum(event.name.startswith("aten::") for event in events)
    kernels = (event for event in events if event.device_type != torch.autograd.DeviceType.CPU)
    return sum(not event.name.startswith(("Memcpy", "Memset", "ProfilerStep")) for event in kernels)


def _measured(case: Case, device: torch.device, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        row = compare(case, seconds, Path(folder) / "run")
        for kind in ("plain", "lens"):
            row[f"launches_{kind}"] = launches(case, kind, device, Path(folder) / "counted")
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def _told(row: dict[str, Any]) -> str:
    floor = f"{row['floor']:.3f}" if "floor" in row else ""
    return (
        f"{row['ratio']:6.3f} {row['low']:6.3f}-{row['high']:.3f} {floor:>6} {row['milliseconds_plain']:7.1f} "
        f"{row['launches_plain']:9} {row['launches_lens']:9} {row['norms']:6}"
    )


class _OverError(BaseException):
    """The time is over: no exception that a hook or a compiler would take for its own."""


def _end(number: int, frame: Any) -> None:
    raise _OverError


def main(arguments: list[str] | None = None) -> None:
    """Print the table, row by row, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="models of some thousand parameters")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--seconds", type=float, default=15, help="for each case, without its compilation")
    parser.add_argument("--minutes", type=float, default=8, help="for all")
    parser.add_argument("--out", type=Path, default=Path("reports/overhead/accelerator.json"))
    options = parser.parse_args(arguments)
    device, begun, rows = torch.device(options.device), time.monotonic(), dict[str, dict[str, Any]]()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    signal.signal(signal.SIGALRM, _end)
    signal.setitimer(signal.ITIMER_REAL, 60 * options.minutes)
    print(f"{name}, torch {torch.__version__}, bfloat16\n")
    heads = f"{'floor':>6} {'ms':>7} {'launches':>9} {'with lens':>9} {'norms':>6}"
    print(f"{'case':24} {'ratio':>6} {'quartiles':>13} {heads}")
    try:
        for label, case in _cases(device, options.tiny):
            left = 60 * options.minutes - (time.monotonic() - begun)
            if options.only not in label or (case.compiled and not options.tiny and left < _TO_COMPILE):
                print(f"{label:24} left out", flush=True)
                continue
            try:
                rows[label] = _measured(case, device, options.seconds)
                print(f"{label:24} {_told(rows[label])}", flush=True)
            except Exception as error:  # the other rows are worth having
                print(f"{label:24} failed: {type(error).__name__}: {str(error).strip()[:80]!r}", flush=True)
    except _OverError:
        print(f"{options.minutes:g} minutes are over")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"device": name, "torch": torch.__version__, "cases": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
