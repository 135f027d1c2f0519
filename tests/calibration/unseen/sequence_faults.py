"""Faults in the networks over sequences."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tests.calibration import batches
from tests.calibration.faults import Planted
from tests.calibration.healthy import LoRA
from tests.calibration.run import WATCH
from tests.calibration.unseen import ways
from tests.calibration.unseen.case import fault
from tests.calibration.unseen.image_faults import in_float16
from tests.calibration.unseen.ways import each, filled, held, inputs, kind, labels, loss, model, once, output, rate

_ATTENTION = {"watch": (*WATCH, "attention")}
#: A gate that is shut is a branch times 0, and dead units as well.
_SHUT = "GL310 GL401 GL309 GL406"


def _wavenet() -> None:
    def on(*declared: Any, **options: Any) -> None:
        fault("wavenet", *declared, **options)

    on("input not added", "skip missing in one block", model(wiring="missing"), at="layers.3")
    on("input taken away", "skip with the wrong sign", model(wiring="minus"), at="layers.3")
    on("gate shut", _SHUT, model(gate=-50.0), at="layers.3")
    on("rows of other labels", "labels shuffled", labels(lambda y: y.roll(1, 0)))
    on("all targets are padding", "label is constant", labels(lambda y: 0 * y))
    on("head dead", "all units of a layer dead", once(filled("post.1.bias", -30.0)), at="post", later=True)
    on("most of the head dead", "most units of a layer dead", once(filled("post.1.bias", -30.0, 0.7)), at="post",
       mild=True)  # fmt: skip
    on("momentum of 0.999", "momentum of 0.999", optimizer="SGD", lr=0.5, settings={"momentum": 0.999})
    on("accumulated, not divided", "accumulated without dividing", kind("accumulated without dividing"))
    on("bfloat16 weights", "bfloat16 weights stand still", kind("rate far too small"), ways.bfloat16, lr=0.05,
       mild=True)  # fmt: skip
    on("block detached", "branch detached", output("layers.3.residual", lambda h: h.detach()),
       output("layers.3.skip", lambda h: h.detach()), at="layers.3", later=True)  # fmt: skip


def _seq2seq() -> None:
    def all_padded(pad: Tensor) -> Tensor:
        pad = pad.clone()
        pad[0] = True
        return pad

    def on(*declared: Any, **options: Any) -> None:
        fault("seq2seq", *declared, **options)

    on("scores times d", "attention's logits saturated", model(sharp=64.0), **_ATTENTION)
    on("scores times 1000", "attention's logits saturated", model(sharp=1000.0), **_ATTENTION)
    on("memory detached", "detach() in the middle", model(cut=True), at="encoder source")
    on("softmax twice", "softmax twice", kind("softmax twice"))
    on("encoder frozen midway", "requires_grad is False in one block",
       once(lambda net: net.encoder.requires_grad_(False)), at="encoder", later=True)  # fmt: skip
    on("a row without words", "NaN in a batch", inputs(all_padded, which=2, once=True), later=True)
    on("decay each step instead of each epoch", "schedule ends too early", rate(lambda since: 0.9**since))
    on("SGD at 30", "rate far too large", optimizer="SGD", lr=30.0, settings={})
    on("loss with the wrong sign", "loss with the wrong sign", kind("loss with the wrong sign"), later=True)
    on("clipped at 0.01", "clipping far below the gradient", kind("clipping far below the gradient"), mild=True)
    on("decoder in no group", "block not in the optimizer", held(lambda name: not name.startswith("decoder")),
       at="decoder")  # fmt: skip
    on("loss summed", "loss summed", kind("loss summed"))


def _conformer() -> None:
    def one_class(planted: Planted) -> None:
        planted.run.data = batches.one_class(planted.run.seed, 16)

    def no_target(before: Any, out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y, label_smoothing=1.0)

    def on(*declared: Any, **options: Any) -> None:
        fault("conformer", *declared, **options)

    on("eval() after a validation", "BatchNorm in evaluation mode", once(lambda net: net.eval()), later=True)
    on("a norm before the norm", "norm twice", model(twice=True), at="layers.1.ff1")
    on("mask the wrong way round", "attention's logits saturated", model(mask="inverted"), **_ATTENTION)
    on("mask hides all", "GL902", model(mask="all"), **_ATTENTION)
    on("gate shut", _SHUT, model(gate=-50.0), at="layers.1")
    on("input of the convolution not added", "skip missing in one block", model(no_skip=True), at="layers.1")
    on("smoothing of 1", "labels shuffled", loss(no_target))
    on("all frames masked", "input is lost", inputs(lambda x: 0 * x), later=True)
    on("warm-up without an end", "rate that keeps growing", rate(lambda since: 1.1**since))
    on("16-bit integers as input", "input scale far too large", inputs(lambda x: 8192 * x))
    on("batches of one class", "batches of one class", one_class)
    on("dropout of 0.97", "dropout of 0.95",
       *(output(path, lambda h: F.dropout(h, 0.97)) for path in ("subsample", "layers.0", "layers.1")))  # fmt: skip


def _zero_lora(planted: Planted) -> None:
    """Both small matrices from 0, so that neither moves."""

    def adapt(net: Any) -> None:
        net.requires_grad_(False)
        for layer in net.layers:
            layer.wq, layer.wv = LoRA(layer.wq), LoRA(layer.wv)
            layer.wq.a.data.zero_()
            layer.wv.a.data.zero_()

    planted.run.on_model.append(adapt)
    planted.run.held = lambda net: [p for p in net.parameters() if p.requires_grad]


def _tied() -> None:
    def on(*declared: Any, **options: Any) -> None:
        fault("tied", *declared, **options)

    blocks = " ".join(f"layers.{i}" for i in range(4))
    on("tied embedding of size 1", "GL808 GL402", model(std=1.0))
    on("scores not divided", "attention's logits saturated", model(gain=3.5), mild=True, **_ATTENTION)
    on("scores times d", "attention's logits saturated", model(gain=42.0), **_ATTENTION)
    on("norm over the tokens", "norm over the wrong axis", model(dim=1), at="layers.1.input_norm")
    on("norm without its derivative", "statistics of a norm detached", model(detached=True), at="layers.1.input_norm")
    on("one token's vector too large", "embedding that drowns the rest", kind("embedding that drowns the rest"))
    on("summed over tokens", "summed over a sequence", kind("summed over a sequence"))
    on("adapters of 0", "block of zeros", _zero_lora, at=blocks)
    on("product in float16", "float16 overflows", output("layers.2.down", in_float16), at="layers.2", later=True)
    on("bfloat16 weights", "bfloat16 weights stand still", ways.bfloat16, lr=1e-4, mild=True)
    on("rate times 30", "rate far too large", kind("rate far too large"), mild=True)
    on("block loaded at another scale", "block that amplifies at once",
       once(ways.scaled("layers.2.down.weight", "layers.2.wo.weight", by=30.0)), at="layers.2", later=True)  # fmt: skip
    on("gain decays", "gain that shrinks", each(ways.scaled("layers.2.post_norm.weight", by=0.95)),
       at="layers.2.post_norm", mild=True)  # fmt: skip


for _declare in (_wavenet, _seq2seq, _conformer, _tied):
    _declare()
