"""Set-ups of the unseen networks that learn as they should."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.healthy import LoRA, set_up, trained_before
from tests.calibration.networks import cross_entropy
from tests.calibration.run import Run
from tests.calibration.unseen.networks import UNSEEN
from tests.calibration.unseen.ways import built

HEALTHY: dict[str, Callable[[int], Run]] = {}


def _add(name: str, change: Callable[[Run], object] = lambda run: None, **own: Any) -> None:
    """Add a set-up of the network that the name begins with."""
    assert name not in HEALTHY, name
    HEALTHY[name] = set_up(UNSEEN[name.partition(",")[0]], change, own)


def _one_cycle(run: Run) -> None:
    up = run.steps // 5
    run.rate = lambda step: (
        (step + 1) / up if step < up else 0.5 * (1 + math.cos(math.pi * (step - up) / (run.steps - up)))
    )


def _lora(run: Run) -> None:
    trained_before(run)

    def adapt(model: nn.Module) -> None:
        model.requires_grad_(False)
        for layer in model.layers:
            layer.wq, layer.wv = LoRA(layer.wq), LoRA(layer.wv)

    run.on_model.append(adapt)
    run.held = lambda model: [p for p in model.parameters() if p.requires_grad]


def _log_probabilities(before: Any, output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of what was a log-softmax already, which does no harm."""
    return cross_entropy(output.log_softmax(-1), target)


def _smooth(before: Any, output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, label_smoothing=0.1)


def _weighed(before: Any, output: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output, target, pos_weight=torch.tensor(3.0))


def _register() -> None:
    for name in UNSEEN:
        _add(name)
    _add("denoiser, bfloat16 autocast, clipped", autocast=torch.bfloat16, clip=1.0)
    _add("wavenet, SGD, one cycle", _one_cycle, optimizer="SGD", lr=0.5, settings={"momentum": 0.9})
    _add("seq2seq, clipped, log-probabilities", lambda run: run.change_loss(_log_probabilities), clip=1.0)
    _add("convnext, drop path, smoothed labels, one cycle",
         lambda run: (run.change_loss(_smooth), built(drop_path=0.1)(run), _one_cycle(run)))  # fmt: skip
    _add("graph, accumulated", micro=2)
    _add("vae, mean over pixels", lambda run: run.change_loss(lambda loss, out, y: loss(out, y) / 196), lr=3e-3)
    _add("siamese, Adam, one cycle", _one_cycle, optimizer="Adam", lr=2e-3, settings={})
    _add("dqn, copied each step", lambda run: built(every=1)(run), clip=10.0)
    _add("pinn, long, one cycle", _one_cycle, steps=400)
    _add("conformer, bfloat16 autocast, one cycle", _one_cycle, autocast=torch.bfloat16)
    _add("tied, one cycle, clipped", _one_cycle, clip=1.0)
    _add("tied, LoRA", _lora, lr=5e-3)
    _add("tab, weighed classes", lambda run: run.change_loss(_weighed))
    _add("critic, RMSprop", optimizer="RMSprop", lr=2e-4, settings={})


_register()
