"""The paper's claims, as data: GL501 to GL506. ``claims`` holds them against runs."""

from functools import partial

from analyses.papers.claims import Claim, Compared
from analyses.papers.findings import LARGER, MORE_SEEDS

_PAPER = "Xu et al. 2019"
_TABLE = f"{_PAPER}, the table of all norms and data sets (read from its poster)"
_claim = partial(
    Claim,
    analysis="xu2019_claims",
    causes=(
        "Short training: norms that end alike may still differ in how fast they get there.",
        "Few seeds: the intervals are wide, and with one seed there is none.",
        "Networks that are smaller than the paper's, or as deep as its shallow ones.",
        "The data sets are not the paper's.",
        "A task that is not yet real work (GL500), on which all norms are alike.",
    ),
    remedies=(MORE_SEEDS, LARGER),
    reference=f"{_PAPER} (1911.07013)",
)
#: Settings are norms.
CLAIMS = (
    _claim(
        code="GL501",
        title="Gain and bias do not help",
        says="without gain and bias, LayerNorm is at least as good",
        compared=(Compared("layernorm-simple", "layernorm", False),),
        expected="no worse on most tasks",
        expected_from=f"{_TABLE}: LayerNorm-simple is at most 0.71 % below LayerNorm on each of the 8 data sets",
        explanation=(
            "Gain and bias do not help. LayerNorm without its gain and bias (LayerNorm-simple) is at least as good as "
            "with them on most tasks: no more than the margin below. Each task is decided by pairs of runs of the same "
            "seed, the claim by the tasks: more than half must support it."
        ),
    ),
    _claim(
        code="GL502",
        title="Gain and bias over-fit",
        says="gain and bias make LayerNorm's training loss lower and its held-out loss higher",
        compared=(
            Compared("layernorm", "layernorm-simple", True, "training loss"),
            Compared("layernorm-simple", "layernorm", True, "held-out loss"),
        ),
        expected="lower in training, higher on held-out data",
        expected_from=f"{_PAPER}, the figure of the losses on Enwiki8 (read from its poster)",
        explanation=(
            "Gain and bias over-fit. With them the training loss ends lower and the held-out loss higher than without. "
            "A task supports the claim where both hold; it contradicts it where either is refuted. Short trainings, in "
            "which no model over-fits, cannot show it."
        ),
    ),
    _claim(
        code="GL503",
        title="Forward normalization is not the point",
        says="DetachNorm, which only normalizes the forward pass, is no better than no norm",
        compared=(Compared("none", "detachnorm", False),),
        expected="no better on most tasks",
        expected_from=f"{_TABLE}: DetachNorm is worse than w/o Norm on 5 data sets, better on 2, and both diverge on 1",
        explanation=(
            "The forward normalization is not the point. DetachNorm normalizes as LayerNorm does, but lets no gradient "
            "through mean and standard deviation. The paper finds it no better than no norm at all on most tasks, and "
            "concludes that normalizing the forward pass is not what helps."
        ),
    ),
    _claim(
        code="GL504",
        title="The derivatives are the point",
        says="LayerNorm-simple, which keeps the derivatives of mean and variance, is better than DetachNorm",
        compared=(Compared("layernorm-simple", "detachnorm", True),),
        expected="better on most tasks",
        expected_from=f"{_TABLE}: LayerNorm-simple is better than DetachNorm on 6 of the 8 data sets",
        explanation=(
            "The derivatives of mean and variance are the point. LayerNorm-simple and DetachNorm compute the same "
            "forward pass; they differ only in the derivatives of mean and variance, which LayerNorm-simple keeps. It "
            "must be the better one on most tasks."
        ),
    ),
    _claim(
        code="GL505",
        title="The variance's derivative counts more",
        says="on deeper networks it costs more to detach the variance than to detach the mean",
        compared=(Compared("detachnorm-mean", "detachnorm-variance", True),),
        expected="better with the mean detached than with the variance detached",
        expected_from=f"{_PAPER}, stated for its deeper networks; the numbers were not at hand",
        explanation=(
            "The variance's derivative matters more than the mean's, on deeper networks. To detach the mean alone "
            "keeps the derivative of the variance, and must be better than to detach the variance alone. Tasks with "
            "shallow networks are shown, and not counted."
        ),
    ),
    _claim(
        code="GL506",
        title="AdaNorm at least equals LayerNorm",
        says="AdaNorm is at least as good as LayerNorm",
        compared=(Compared("adanorm", "layernorm", False),),
        expected="no worse on most tasks",
        expected_from=f"{_TABLE}: AdaNorm is at least as good on each of the 8 data sets, and better on 7",
        explanation=(
            "AdaNorm at least equals LayerNorm. The paper's own norm, which scales each entry by a function of its own "
            "value through which no gradient flows, is no more than the margin worse than LayerNorm on most tasks."
        ),
    ),
)
