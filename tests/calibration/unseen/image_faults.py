"""Faults in the networks over images."""

from typing import Any

import torch
from torch import Tensor

from tests.calibration.faults import Planted
from tests.calibration.unseen import ways
from tests.calibration.unseen.case import fault
from tests.calibration.unseen.networks import elbo
from tests.calibration.unseen.ways import each, filled, held, inputs, kind, labels, loss, model, once, output, rate


def one_nan(x: Tensor) -> Tensor:
    x = x.clone()
    x[0] = float("nan")
    return x


def in_float16(h: Tensor) -> Tensor:
    """Return what comes back from a product that was made in float16, of numbers too large for it."""
    return (1e6 * h).half().float() / 1e6


def _denoiser() -> None:
    def averaged(planted: Planted) -> None:
        """Forget to put the weights back after those of the moving average were tried."""
        average: dict[str, Tensor] = {}

        def act(net: Any) -> None:
            for name, p in net.named_parameters():
                p.copy_(average.setdefault(name, p.detach().clone()).lerp_(p, 1e-4))

        each(act)(planted)

    def on(*declared: Any, **options: Any) -> None:
        fault("denoiser", *declared, **options)

    on("pixels from 0 to 255", "input scale far too large", inputs(lambda x: 127.5 * (x + 1)))
    on("pixels from 0 to 255 in a second source", "input scale far too large", inputs(lambda x: 127.5 * (x + 1)),
       later=True)  # fmt: skip
    on("whole block from 0", "block of zeros", model(zeros=3), at="mid1")
    on("eps in the wrong place", "eps as large as the variance", model(eps=10.0), at="mid1.norm1")
    on("eps in the wrong place", "eps as large as the variance", model(eps=1.0), at="mid1.norm1", mild=True)
    on("time detached", "detach() in the middle", model(deaf=True), at="time_mlp")
    on("trained on in its own average", "GL404 GL405 GL306", averaged)
    on("noise of another image as target", "labels shuffled", labels(lambda y: y.roll(1, 0)))
    on("loss summed", "loss summed", kind("loss summed"))
    on("clipped at 0.001", "clipping far below the gradient", kind("clipping far below the gradient"), later=True)
    on("rate times 300", "rate far too large", kind("rate far too large"))
    on("root of less than 0", "NaN in a batch", inputs(one_nan, once=True), later=True)
    on("product in float16", "float16 overflows", output("mid1.conv1", in_float16), at="mid1", later=True)


def _convnext() -> None:
    def on(*declared: Any, **options: Any) -> None:
        fault("convnext", *declared, **options)

    on("scale of a block is a buffer of 0", "branch times 0", model(buffers=4), at="stages.2.1")
    on("last block always dropped", "branch times 0", model(drop_path=1.0), at="stages.2.2")
    on("norm over the side", "norm over the wrong axis", model(norm="side"), at="stages.0.1.norm")
    on("eps of 100", "eps as large as the variance", model(norm="large eps"), at="stages.0.1.norm")
    on("eps of 1", "eps as large as the variance", model(norm="eps"), at="stages.0.1.norm", mild=True)
    on("input not added", "skip missing in one block", model(no_skip=1), at="stages.0.1")
    on("decay of 50", "weight decay far too large", settings={"weight_decay": 50.0})
    on("restart", "schedule restarts too high", kind("schedule restarts too high"), later=True)
    on("mixed images, labels as before", "labels shuffled", inputs(lambda x: x.roll(1, 0)), later=True)
    on("divided by 255 twice", "input scale far too small", inputs(lambda x: x / 255))
    on("norms in no group", "block not in the optimizer", held(lambda name: "norm" not in name),
       at=" ".join(f"stages.{i}.{j}.norm" for i in (0, 2) for j in range(3)))  # fmt: skip
    on("block loaded at another scale", "block that amplifies at once",
       once(ways.scaled("stages.2.1", by=10.0)), at="stages.2.1", later=True)  # fmt: skip


def _by_hand(before: Any, out: Any, target: Tensor) -> Tensor:
    """Cross-entropy of probabilities that were rounded to 8 bits, with a gradient as though they were not."""
    p = out[0].sigmoid()
    p = p + ((p * 255).round() / 255 - p).detach()
    y = target.flatten(1)
    return -(y * p.log() + (1 - y) * (1 - p).log()).sum() / len(p)


def _vae() -> None:
    def on(*declared: Any, **options: Any) -> None:
        fault("vae", *declared, **options)

    apart = "encoder mu logvar"
    on("logarithms of variances too large", "GL307", once(ways.scaled("logvar", by=3000.0)), at="logvar decoder")
    on("cross-entropy by hand", "logarithm of 0", loss(_by_hand))
    on("divergence with the wrong sign", "GL703 GL307", loss(lambda b, out, y: elbo(out, y, beta=-1.0)))
    on("sampled without its gradient", "detach() in the middle", model(sample=True),
       loss(lambda b, out, y: elbo(out, y, beta=0.0)), at=apart)  # fmt: skip
    on("optimizer of the decoder alone", "block not in the optimizer", held(lambda name: "decoder" in name), at=apart)
    on("most of a layer dead", "most units of a layer dead", once(filled("decoder.0.bias", -30.0, 0.9)),
       at="decoder.0", later=True)  # fmt: skip
    on("rate times 300", "rate far too large", kind("rate far too large"))
    on("spike of the rate", "spike of the rate", kind("spike of the rate"), later=True)
    on("product in float16", "float16 overflows", output("mu", in_float16), at="mu", later=True)
    on("NaN in each batch", "NaN in a batch", inputs(one_nan), later=True)
    on("loss taken from a number", "loss of a detached output", kind("loss of a detached output"))
    on("accumulated, not divided", "accumulated without dividing", kind("accumulated without dividing"))


def _siamese() -> None:
    def on(*declared: Any, **options: Any) -> None:
        fault("siamese", *declared, **options)

    def blank(z: Tensor) -> Tensor:
        return torch.cat([0 * z[:1], z[1:]])

    evaluated = "BatchNorm in evaluation mode"
    on("eval() before training", evaluated, once(lambda net: net.eval()))
    on("eval() after a validation", evaluated, once(lambda net: net.eval()), later=True)
    on("norm of a zero vector", "GL307", model(unsafe=True), output("projector", blank), at="projector", later=True)
    on("pairs of two images", "labels shuffled", inputs(lambda x: x.roll(1, 0), which=1))
    on("factor on the temperature", "layer that holds nearly all of the gradient", model(times=100.0),
       at="logit_scale", optimizer="Adam", lr=2e-3, settings={})  # fmt: skip
    on("restart", "schedule restarts too high", kind("schedule restarts too high"), later=True)
    on("rate times 30", "rate far too large", kind("rate far too large"), mild=True)
    on("projector dead", "all units of a layer dead", once(filled("projector.1.bias", -30.0)), at="projector")
    on("gain of 0", "gain held at 0", each(filled("encoder.4.weight", 0.0)), at="encoder.4", later=True)
    on("layer frozen midway", "requires_grad is False in one block",
       once(lambda net: net.encoder[3].requires_grad_(False)), at="encoder.3", later=True)  # fmt: skip
    on("images of another scale", "input scale far too large", inputs(lambda x: 255 * x), inputs(lambda x: 255 * x, 1))


def _critic() -> None:
    def on(*declared: Any, **options: Any) -> None:
        fault("critic", *declared, **options)

    on("weights clamped, gains too", "GL407 GL404", each(lambda net: [p.clamp_(-0.01, 0.01) for p in net.parameters()]),
       at="body.1 body.4")  # fmt: skip
    on("root of a zero slope", "GL307", model(zero_head=True, safe=False))
    on("infinite pixel", "infinity in the input", inputs(lambda x: x / (x != x[0, 0, 0]), once=True), later=True)
    on("gradients never zeroed", "gradients never zeroed", kind("gradients never zeroed"))
    on("rate times 300", "rate far too large", kind("rate far too large"))
    on("rate that doubles", "rate that keeps growing", rate(lambda since: 2 ** (since / 5)), later=True, step=False)
    on("pixels from 0 to 255", "input scale far too large", inputs(lambda x: 127.5 * (x + 1)))
    on("first layer in no group", "block not in the optimizer", held(lambda name: "body.0" not in name), at="body.0")
    on("product in float16", "float16 overflows", output("body.3", in_float16), at="body.3", later=True)
    on("clipped at 0.01", "clipping far below the gradient", kind("clipping far below the gradient"), mild=True)


for _declare in (_denoiser, _convnext, _vae, _siamese, _critic):
    _declare()
