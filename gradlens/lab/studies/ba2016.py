"""Ba et al. 2016: what layer normalization does not depend on, the gradient through time, and batches of four.

Three parts. ``invariance`` measures the first layer of an MLP under the changes of the paper's Table 1, with five
norms. ``recurrent`` measures how the gradient goes back through an RNN, an LSTM and a GRU with LayerNorm, by the
equations of the paper's supplement, and without, at three sizes of the weights. ``digits`` is the paper's section 6.6:
MNIST without an order of pixels, batches of 128 and of 4, against BatchNorm, weight norm and no norm.

From the paper: the equations, the table, the two batch sizes, ReLU behind the norm, no norm at the output; the two
hidden layers of 1000 are recalled. Ours: the images (5,000 of MNIST), Adam and its rate, which the paper does not say,
and the text for the recurrent networks. ``paper`` has the paper's sizes.
"""

from collections.abc import Iterator
from typing import Any

from gradlens.lab.studies.cell import Cell, Trained, Untrained
from gradlens.lab.studies.study import Budget, Study

#: Name to the variant and, of norms that are not over one case's units, what else normalizes.
NORMS = {
    "layernorm": ("plain", ""),
    "rmsnorm": ("plain/rmsnorm", ""),
    "batch": ("plain/none", "batch"),
    "weight": ("plain/none", "weight"),
    "none": ("plain/none", ""),
}
#: Recurrent cells.
CELLS = ("rnn", "lstm", "gru")
_TRAINED = ("layernorm", "batch", "weight", "none")


def _invariance(seeds: int, width: int) -> Iterator[Cell]:
    for norm, (variant, other) in NORMS.items():
        yield Untrained(
            key=f"invariance/{norm}",
            label=f"first layer, {norm}",
            part="invariance",
            task="images-mlp",
            variant=variant,
            # The paper has no eps; torch's BatchNorm asks for one.
            size={"width": width, "other": other, "eps": 1e-30},
            seconds=0.3 * seeds,
            seeds=seeds,
            batch_size=64,
            length=2,
            probes=("invariances",),
        )


def _recurrent(seeds: int, width: int, length: int) -> Iterator[Cell]:
    for cell in CELLS:
        for norm in ("layernorm", "none"):
            yield Untrained(
                key=f"recurrent/{cell}/{norm}",
                label=f"{cell}, {norm}",
                part="recurrent",
                task="lm-recurrent",
                variant=NORMS[norm][0],
                size={"width": width, "cell": cell, "eps": 1e-12},
                seconds=1.5 * seeds,
                seeds=seeds,
                batch_size=16,
                length=length,
                probes=("through_time",),
            )


def _digits(seeds: int, width: int, seconds: float, steps: dict[int, int], **training: Any) -> Iterator[Cell]:
    for batch_size, own in steps.items():
        for norm in _TRAINED:
            variant, other = NORMS[norm]
            yield Trained(
                key=f"digits/batch-{batch_size}/{norm}",
                label=f"batches of {batch_size}, {norm}",
                part="digits",
                task="images-mlp",
                variant=variant,
                size={"width": width, "other": other},
                seconds=seconds,
                training={
                    "steps": own,
                    "batch_size": batch_size,
                    "lr": 1e-3,
                    "every": max(1, own // 100),
                    "evaluate_every": max(1, own // 10),
                    "checkpoint_every": own // 2,
                    **training,
                },
                seeds=seeds,
            )


STUDY = Study(
    name="ba2016",
    title="Layer Normalization",
    reference="Ba, Kiros, Hinton 2016 (1607.06450)",
    parts=("invariance", "recurrent", "digits"),
    budgets={
        "small": Budget(
            about="a look at every part, five minutes on two cores",
            cells=(*_invariance(3, 128), *_recurrent(5, 64, 48), *_digits(4, 128, 6, {128: 200, 4: 600})),
        ),
        "medium": Budget(
            about="every claim with the paper's layers, about an hour on two cores",
            cells=(*_invariance(10, 1000), *_recurrent(20, 128, 100), *_digits(5, 1000, 120, {128: 1000, 4: 4000})),
        ),
        "paper": Budget(
            about="the paper's sizes; hours on one accelerator",
            cells=(*_invariance(10, 1000), *_recurrent(20, 512, 200), *_digits(5, 1000, 900, {128: 10_000, 4: 50_000})),
        ),
    },
)
