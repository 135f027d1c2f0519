"""The paper's claims about the warm-up, as data: GL600 to GL604. ``claims`` holds them against runs."""

from functools import partial

from analyses.papers.claims import Claim, Compared
from analyses.papers.findings import LARGER, MORE_SEEDS
from analyses.papers.xiong2020.paper import XIONG

_claim = partial(
    Claim,
    analysis="xiong2020_claims",
    unit="% of the held-out loss",
    causes=(
        "Learning rates that are low for this network: a narrower one bears more.",
        "Short training: what a bad start costs may not yet show, or not yet be made up for.",
        "Few seeds: the intervals are wide, and with one seed there is none.",
        "The data, the network and its width are not the paper's.",
    ),
    remedies=(MORE_SEEDS, LARGER),
    reference=XIONG,
)
#: Settings are arrangements with a warm-up, one of ``runs.WARM_UPS``.
CLAIMS = (
    _claim(
        code="GL600",
        title="Post-LN needs a warm-up with Adam",
        says="without the warm-up, Post-LN with Adam ends worse",
        compared=(Compared("post-ln, full", "post-ln, none", True, optimizers=("adam",)),),
        expected="8.45 BLEU (34 with it)",
        expected_from=f"{XIONG}, section 3.1 and Fig. 2 (IWSLT14 De-En, learning rate 1e-3)",
        explanation=(
            "Post-LN needs a warm-up with Adam. Trained with the full learning rate from the first step on, a Post-LN "
            "network ends with a held-out loss that is higher by more than the margin than with the whole warm-up, or "
            "diverges. Pairs of runs of the same seed decide, at each learning rate."
        ),
    ),
    _claim(
        code="GL601",
        title="Post-LN needs a warm-up with SGD too",
        says="without the warm-up, Post-LN with SGD ends worse",
        compared=(Compared("post-ln, full", "post-ln, none", True, optimizers=("sgd",)),),
        expected="about 0 BLEU",
        expected_from=f"{XIONG}, section 3.1 and Fig. 2 (15 epochs)",
        explanation=(
            "Post-LN needs a warm-up with SGD too. The same with plain SGD: the paper concludes that it is not Adam's "
            "uncertain second moments in the first steps that call for a warm-up, but the arrangement."
        ),
    ),
    _claim(
        code="GL602",
        title="The length of the warm-up matters",
        says="with a short warm-up, Post-LN ends worse than with the whole one",
        compared=(Compared("post-ln, full", "post-ln, short", True),),
        expected="2.77 and 31.16 BLEU",
        expected_from=f"{XIONG}, section 3.1 and Fig. 2: with 500 steps at 1e-3 and 5e-4, where 4,000 reach about 34",
        explanation=(
            "The length of the warm-up matters. A warm-up of an eighth of the whole one ends with a held-out loss that "
            "is higher by more than the margin: in the paper's translation 31.16 BLEU and 2.77 at the two learning "
            "rates, where the whole one reaches about 34."
        ),
    ),
    _claim(
        code="GL603",
        title="Pre-LN needs no warm-up",
        says="without the warm-up, Pre-LN ends no worse than with it",
        compared=(Compared("pre-ln, none", "pre-ln, full", False),),
        expected="about 34 BLEU",
        expected_from=f"{XIONG}, Fig. 4",
        explanation=(
            "Pre-LN needs no warm-up. Trained with the full learning rate from the first step on, a Pre-LN network "
            "ends no worse than with the whole warm-up, or by less than the margin."
        ),
    ),
    _claim(
        code="GL604",
        title="Pre-LN without warm-up equals Post-LN with it",
        says="without a warm-up, Pre-LN ends no worse than Post-LN with the whole one",
        compared=(Compared("pre-ln, none", "post-ln, full", False),),
        expected="both about 34 BLEU",
        expected_from=f"{XIONG}, Fig. 4",
        explanation=(
            "Pre-LN without warm-up equals Post-LN with it. At the same optimizer and learning rate, Pre-LN without a "
            "warm-up ends no worse than Post-LN with the whole one, or by less than the margin."
        ),
    ),
)
