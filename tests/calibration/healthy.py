"""Set-ups that learn as they should: what is said of them is a false alarm."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.lab.models.variants import ARRANGEMENTS, PLAIN
from tests.calibration import batches, families, models
from tests.calibration.batches import CLASSES, IGNORED, Batch
from tests.calibration.blocks import Attention, Wrong
from tests.calibration.networks import NETWORKS, Network, optimizer_of, squared_error
from tests.calibration.run import Run

#: From a seed to a training.
HEALTHY: dict[str, Callable[[int], Run]] = {}


def set_up(network: Network, change: Callable[[Run], object], own: dict[str, Any]) -> Callable[[int], Run]:
    """Return a set-up: a network, what is done otherwise, and attributes of the run."""

    def of(seed: int) -> Run:
        run = Run(network, seed)
        for attribute, value in own.items():
            setattr(run, attribute, value)
        change(run)
        return run

    return of


def _add(name: str, network: str | Network, change: Callable[[Run], object] = lambda run: None, **own: Any) -> None:
    """Add a set-up."""
    assert name not in HEALTHY, name
    HEALTHY[name] = set_up(NETWORKS[network] if isinstance(network, str) else network, change, own)


def _cosine(run: Run) -> None:
    warm_up = run.steps // 10
    run.rate = lambda step: (
        (step + 1) / warm_up if step < warm_up else 0.5 * (1 + math.cos(math.pi * step / run.steps)) + 0.01
    )


def _other_task(batch: Batch) -> Batch:
    """Return a batch of what a model may have learned before: other labels, or text that is read backwards."""
    x, y = batch
    if x.is_floating_point():
        return x, (y + 1) % CLASSES
    if (y == IGNORED).any():
        return x.flip(1), y.flip(1)
    whole = torch.cat([x, y[:, -1:]], 1).flip(1)
    return whole[:, :-1], whole[:, 1:]


def trained_before(run: Run, steps: int = 120) -> None:
    """Let the model learn another task before it is recorded."""

    def learn(model: nn.Module) -> None:
        optimizer = optimizer_of(run.optimizer, model.parameters(), run.lr, run.settings)
        for step in range(steps):
            x, y = _other_task(run.network.data(run.seed + 1)(step))
            optimizer.zero_grad()
            run.network.loss(model(x), y).backward()
            optimizer.step()
        model.zero_grad()

    run.on_model.insert(0, learn)


def _frozen(*paths: str) -> Callable[[Run], None]:
    """Fine-tune what does not lie below the paths."""

    def change(run: Run) -> None:
        trained_before(run)
        run.on_model.append(lambda model: [model.get_submodule(path).requires_grad_(False) for path in paths])
        run.held = lambda model: [p for p in model.parameters() if p.requires_grad]

    return change


class LoRA(nn.Module):
    """A frozen linear map and a small one of low rank beside it, 0 at first."""

    def __init__(self, linear: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + x @ self.a.T @ self.b.T


def _lora(run: Run) -> None:
    trained_before(run)

    def adapt(model: nn.Module) -> None:
        model.requires_grad_(False)
        for module in list(model.modules()):
            if isinstance(module, Attention):
                module.qkv, module.out = LoRA(module.qkv), LoRA(module.out)

    run.on_model.append(adapt)
    run.held = lambda model: [p for p in model.parameters() if p.requires_grad]


def _bfloat16(run: Run) -> None:
    run.on_model.append(lambda model: model.bfloat16())
    if run.data(0)[0].is_floating_point():
        run.change_data(lambda batch, step: (batch[0].bfloat16(), batch[1]))


def _by_heart(run: Run) -> None:
    data = run.data
    run.data = lambda index: data(index % 4)


def _sgd(lr: float, momentum: float = 0.9) -> dict[str, Any]:
    return {"optimizer": "SGD", "lr": lr, "settings": {"momentum": momentum}}


def _text(name: str, build: Callable[[Wrong], nn.Module], lr: float = 2e-3, masked: bool = False) -> Network:
    return Network(name, build, batches.masked if masked else batches.text, "Adam", lr, warm_up=20)


def _linear(wrong: Wrong) -> nn.Module:
    return nn.Linear(16, 1)


def _register() -> None:
    for name in NETWORKS:
        _add(name, name)
    for name in ARRANGEMENTS:
        if name not in (PLAIN, "pre-ln"):
            rate = 1e-3 if name in ("post-ln", "b2t", "norm-free", "rezero") else 2e-3
            _add(f"zoo {name}", _text(name, lambda wrong, name=name: families.zoo(name), rate))
    _add("zoo pre-ln/rmsnorm", _text("rms", lambda wrong: families.zoo("pre-ln/rmsnorm")))
    for name in ("bert", "gpt2", "llama"):
        _add(f"{name} at initialization", name, initial=True)
    long = {"steps": 600}
    _add("dense, long", "dense", **long)
    _add("mlp, long", "mlp", **long)
    _add("autoencoder, long", "autoencoder", **long)
    _add("lstm, long", "lstm", **long)
    _add("cnn, long and converged", "cnn", _by_heart, **long)
    _add("mlp, by heart", "mlp", _by_heart, **long)
    _add("dense, cosine to 0", "dense", _cosine, **long)
    line = Network("line", _linear, batches.line, "SGD", 0.05, loss=squared_error)
    _add("regression, converged to noise", line, **long)
    _add("regression, Adam", replace(line, optimizer="Adam", lr=0.02), **long)
    _add("gpt, warm-up, cosine, clipped", "gpt", _cosine, clip=1.0)
    _add("vit, warm-up and cosine", "vit", _cosine)
    _add("llama, cosine, clipped", "llama", _cosine, clip=1.0)
    _add("gpt2, SGD", "gpt2", **_sgd(0.05))
    _add("dense, SGD", "dense", **_sgd(0.03))
    _add("vit, SGD", "vit", **_sgd(0.03))
    _add("lstm, SGD, clipped", "lstm", clip=1.0, **_sgd(0.3))
    _add("cnn, AdamW", "cnn", optimizer="AdamW", lr=1e-3, settings={"weight_decay": 0.1})
    _add("resnet, plain SGD", "resnet", **_sgd(0.1, 0.0))
    _add("resnet, fine-tuned", "resnet", _frozen("stem", "blocks.0", "blocks.1"))
    _add("gpt, embedding frozen", "gpt", _frozen("stem"))
    _add("dense, only the head", "dense", _frozen("stem", "blocks", "norm"))
    _add("bert, fine-tuned", "bert", _frozen("bert.embeddings"))
    _add("gpt, LoRA", "gpt", _lora, lr=5e-3)
    _add("vit, LoRA", "vit", _lora, lr=5e-3)
    _add("dense, bfloat16 weights", "dense", _bfloat16, lr=3e-3)
    _add("encoder, bfloat16 weights", "encoder", _bfloat16, lr=3e-3)
    _add("gpt, bfloat16 autocast", "gpt", autocast=torch.bfloat16)
    _add("cnn, bfloat16 autocast", "cnn", autocast=torch.bfloat16)
    _add("gpt, accumulated", "gpt", micro=3, steps=100)
    _add("mlp, accumulated", "mlp", micro=4)
    _add(
        "dense, GradScaler off", "dense", lambda run: setattr(run, "scaler", torch.amp.GradScaler("cpu", enabled=False))
    )
    _add(
        "mixer, GradScaler", "mixer", lambda run: setattr(run, "scaler", torch.amp.GradScaler("cpu", init_scale=1024.0))
    )
    _add(
        "encoder of 12 blocks, norm first",
        _text("deep", lambda wrong: families.torch_encoder(wrong, 12, True), 1e-3, True),
    )
    _add("Post-LN of 8 blocks", replace(NETWORKS["post"], build=lambda wrong: models.post(wrong, blocks=8), lr=5e-4))
    _add("dense of 24 blocks", replace(NETWORKS["dense"], build=lambda wrong: models.dense(wrong, blocks=24)))


_register()
