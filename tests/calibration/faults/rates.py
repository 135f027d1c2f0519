"""Faults of the optimizer: its rate, what it holds, what is done to the gradients before."""

from typing import Any

import torch
from torch import nn

from tests.calibration import families, models
from tests.calibration.faults.kind import ANY, BOTH, GROSS, LATER, MOMENTUM, RESIDUAL, Planted, kind
from tests.calibration.faults.sites import block


def _times(planted: Planted, factor: float, until: int = 10**9) -> None:
    before = planted.run.rate
    planted.run.rate = lambda step: before(step) * (factor if planted.step <= step < until else 1.0)


@kind("rate far too large", "GL404", on=ANY)
def rate_too_large(planted: Planted) -> None:
    _times(planted, planted.pick(300, 30))


@kind("rate far too small", "GL404", "GL405", on=ANY)
def rate_too_small(planted: Planted) -> None:
    _times(planted, planted.pick(1e-6, 1e-4))


@kind("spike of the rate", "GL408", "GL404", on=ANY, variants=LATER)
def rate_spike(planted: Planted) -> None:
    _times(planted, planted.pick(300, 50), planted.step + 3)


@kind("schedule restarts too high", "GL408", "GL404", on=ANY, variants=LATER)
def restarts_too_high(planted: Planted) -> None:
    _times(planted, planted.pick(200, 30))


@kind("schedule ends too early", "GL408", "GL405", "GL404", on=ANY, variants=LATER)
def ends_too_early(planted: Planted) -> None:
    _times(planted, planted.pick(0.0, 1e-5))


@kind("momentum of 0.999", "GL404", on=MOMENTUM, variants=GROSS)
def heavy_momentum(planted: Planted) -> None:
    run = planted.run
    if run.optimizer == "SGD":
        run.settings = {"momentum": 0.999}
    else:
        run.optimizer, run.settings, run.lr = "SGD", {"momentum": 0.999}, 0.05


@kind("weight decay far too large", "GL404", "GL407", on=("gpt", "resnet", "dense", "vit", "mlp", "cnn"))
def heavy_decay(planted: Planted) -> None:
    run = planted.run
    run.optimizer = "AdamW" if run.optimizer == "Adam" else run.optimizer
    # The share of each weight that is taken away in a step.
    run.settings["weight_decay"] = planted.pick(0.2, 0.03) / run.lr


@kind("clipping far below the gradient", "GL403", on=ANY, variants=(*BOTH, ("gross", "later")))
def clipped(planted: Planted) -> None:
    # A limit of the norm; Adam does not mind a constant factor, which the clipping of every step is not quite.
    run, most = planted.run, planted.pick(1e-3, 1e-2)

    def clip(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
        run.clip = most if step >= planted.step else None

    run.each_step.append(clip)


@kind("gradients never zeroed", "GL706", on=ANY, variants=GROSS)
def never_zeroed(planted: Planted) -> None:
    planted.run.zero = False


@kind("accumulated without dividing", "GL701", "GL311", on=("resnet", "mlp", "cnn", "gpt", "dense"))
def not_divided(planted: Planted) -> None:
    planted.run.micro, planted.run.divisor = int(planted.pick(16, 6)), 1.0
    planted.run.steps = 60


@kind("loss with the wrong sign", "GL703", on=ANY, variants=(("gross", "start"), ("gross", "later")))
def wrong_sign(planted: Planted) -> None:
    planted.run.sign = lambda step: -1.0 if step >= planted.step else 1.0


@kind("block not in the optimizer", "GL405", on=RESIDUAL, variants=GROSS)
def not_in_the_optimizer(planted: Planted) -> None:
    path = block(planted)
    planted.places.append(path)

    def held(model: nn.Module) -> Any:
        return [p for name, p in model.named_parameters() if not name.startswith(path + ".")]

    planted.run.held = held


@kind("rate of one group only", "GL405", "GL404", on=RESIDUAL, variants=BOTH)
def rate_of_one_group(planted: Planted) -> None:
    rate = planted.run.lr * planted.pick(0.0, 1e-5)

    def held(model: Any) -> Any:
        head = list(model.head.parameters())
        own = {id(p) for p in head}
        return [{"params": head}, {"params": [p for p in model.parameters() if id(p) not in own], "lr": rate}]

    planted.run.held = held


@kind("bfloat16 weights stand still", "GL405", on=("gpt", "vit", "dense", "mixer", "encoder"), variants=BOTH)
def bfloat16_stagnation(planted: Planted) -> None:
    run = planted.run
    run.on_model.append(lambda model: model.bfloat16())
    if run.network.name not in ("gpt", "encoder"):
        run.change_data(lambda batch, step: (batch[0].bfloat16(), batch[1]))
    _times(planted, planted.pick(1e-2, 5e-2))


#: Post-LN networks that are deep, in place of the shallow ones of these names.
_DEEP = {
    "post": lambda wrong: models.post(wrong, blocks=12),
    "encoder": lambda wrong: families.torch_encoder(wrong, blocks=12),
    "bert": lambda wrong: families.bert(wrong, blocks=12),
    "zoo": lambda wrong: families.zoo("post-ln", blocks=12),
}


@kind("deep Post-LN without warm-up", "GL404", "GL305", on=tuple(_DEEP), variants=GROSS)
def no_warm_up(planted: Planted) -> None:
    run = planted.run
    run.build = _DEEP[run.network.name]
    run.rate, run.lr, run.steps = (lambda step: 1.0), 3e-3, 120


@kind("rate that keeps growing", "GL404", on=ANY, variants=(("gross", "later"),), has_step=False)
def keeps_growing(planted: Planted) -> None:
    before = planted.run.rate
    planted.run.rate = lambda step: before(step) * (1.0 if step < planted.step else 1.15 ** (step - planted.step))
