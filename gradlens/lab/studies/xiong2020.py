"""Xiong et al. 2020: where the norm stands, gradients at initialization, and the learning-rate warm-up.

Three parts. ``initialization`` measures models that are not trained: the 6-6 to 14-14 encoder-decoder of their
Figure 3 and deeper ones, the encoder their theorem is about, and how the output answers to noise in the weights, and
the loss to curvature, by arrangement and depth. ``warm-up`` is their section 3.1: translation with Adam and SGD, the
warm-up whole, an eighth of it, or none, with one and the same decay, lr sqrt(warm-up / step), so that only the warm-up
differs; the same of a language model, in place of their BERT. ``limits`` goes on from there: runs at multiples
of the largest stable learning rate that is predicted for each at its initialization, once from the edge of stability
and once by trials of a few steps.

From the paper: 6 + 6 blocks, 4 heads, dropout and label smoothing 0.1, Xavier's initialization, Adam's betas, two
learning rates of which one is twice the other, a full warm-up of a quarter of the steps and a short one of an eighth
of that, and Adam's on translation, 5e-4 and 1e-3. Ours: the data (see the tasks), widths, steps and batches, so that
two cores suffice, and the other learning rates. ``paper`` has the paper's.
"""

from gradlens.lab.studies.study import Budget, Study
from gradlens.lab.studies.xiong2020_cells import (
    ARRANGEMENTS,
    PAIR,
    amplified,
    curved,
    encoder_decoders,
    encoders,
    limits,
    warm_ups,
)

_SMALL = (
    *encoder_decoders((6, 10, 14)),
    *encoders((4, 8, 16)),
    *amplified(("post-ln", "pre-ln", "admin"), (4, 16)),
    *curved((4, 16), seeds=3),
    *warm_ups(
        "translation",
        25,
        steps=300,
        size={"width": 64},
        adam=(1e-3,),
        short=False,
        seeds=2,
        batch_size=8,
        length=48,
        evaluation_batches=2,
    ),
    *limits(PAIR, ("sgd", "adam"), (0.5, 8), seeds=1),
)
_MEDIUM = (
    *encoder_decoders((6, 8, 10, 12, 14, 24, 32, 48, 64)),
    *encoders((4, 8, 16, 32)),
    *amplified(ARRANGEMENTS, (4, 8, 16, 32)),
    *curved((4, 8, 16, 32), seeds=20),
    *warm_ups(
        "translation", 120, steps=800, size={"width": 128}, adam=(5e-4, 1e-3), sgd=(0.7,), batch_size=8, length=48
    ),
    *warm_ups("lm", 30, steps=400, size={"width": 96}, adam=(1e-3, 2e-3), batch_size=8, length=64),
    *limits(("pre-ln", "post-ln", "peri-ln"), ("sgd", "momentum", "adam"), (0.5, 2, 8), seeds=2),
)
_PAPER = (
    *encoder_decoders((6, 8, 10, 12, 14, 24, 32, 48, 64), width=512, batch_size=32, length=128),
    *encoders((4, 8, 16, 32), width=512),
    *amplified(ARRANGEMENTS, (4, 8, 16, 32)),
    *curved((4, 8, 16, 32), seeds=20),
    *warm_ups(
        "translation",
        20_000,
        steps=16_000,
        size={"width": 512, "ffn": 1024},
        adam=(5e-4, 1e-3),
        sgd=(1e-3, 5e-3),
        batch_size=32,
        length=128,
        evaluation_batches=60,
    ),
    *warm_ups("lm", 4000, steps=4000, size={"width": 512}, adam=(1e-3, 2e-3), batch_size=32, length=128),
    *limits(("pre-ln", "post-ln", "peri-ln"), ("sgd", "momentum", "adam"), (0.5, 2, 8), seeds=2),
)

STUDY = Study(
    name="xiong2020",
    title="On Layer Normalization in the Transformer Architecture",
    reference="Xiong et al. 2020 (2002.04745)",
    parts=("initialization", "warm-up", "limits"),
    budgets={
        "small": Budget(about="a look at every part, five minutes on two cores", cells=_SMALL),
        "medium": Budget(about="every claim, an hour and a half on two cores", cells=_MEDIUM),
        "paper": Budget(about="the paper's sizes; days on one accelerator", cells=_PAPER),
    },
)
