"""The words a report uses, each with its meaning, and the marks of the five statuses."""

from gradlens.analysis import ending
from gradlens.analysis.finding import Status

#: Status to (mark, word). Mark, word and colour say the same thing, so that none is needed alone.
STATUS: dict[Status, tuple[str, str]] = {
    "fail": ("✗", "fail"),
    "warn": ("▲", "warn"),
    "inconclusive": ("?", "inconclusive"),
    "pass": ("✓", "pass"),
    "not applicable": ("–", "not applicable"),
}

#: The statuses that a reader should look at.
FLAGGED: tuple[Status, ...] = ("fail", "warn", "inconclusive")

#: What each status claims, for the reader of the PDF.
STATUS_MEANING: dict[Status, str] = {
    "fail": "the whole confidence interval lies beyond the limit",
    "warn": "worth a look: a limit is touched or an expectation is not met",
    "inconclusive": "the confidence interval covers the limit; more seeds or steps would decide",
    "pass": "within the limit",
    "not applicable": "the recordings do not hold what the check needs",
}

DEFINITIONS: dict[str, str] = {
    "grad_output": "dL/d(output): the gradient that arrives at a module in the backward pass.",
    "grad_input": "dL/d(input) through this module only. At the input of a Pre-LN norm it is not the "
    "gradient of the stream, which also holds the path beside the branch.",
    "g": "γ ⊙ grad_output: the gradient at the normalized value, before the norm's own derivative acts.",
    "vector": "the H entries that share one mean μ and standard deviation σ; LayerNorm: a token's features.",
    "recentering": "share of the energy Σ‖g‖² that the derivative of μ removes: Σ H·ḡ² / Σ‖g‖².",
    "rescaling": "share of it that the derivative of σ removes: Σ H·s² / Σ‖g‖², s = mean(g·x̂), up to eps.",
    "kept": "the share that gets through; recentering, rescaling and kept sum to 1.",
    "inv_sigma": "mean over vectors of 1/σ, the factor by which a norm scales what it lets through.",
    "stream": "the residual stream: what runs past the branches from the embedding to the head.",
    "branch": "attention or feed-forward network, whose output is added to the stream.",
    "skip": "the stream past one branch. Mostly the identity; DeepNorm and Admin scale it.",
    "arrangement": "where a block has its norms, and what scales skip or branch. Post-LN: a norm after each addition "
    "to the stream. Pre-LN: at the start of each branch, and once after the last block. Peri-LN: at its start and at "
    "its end. ReZero, norm-free: nowhere, and the branch is scaled instead. `gradlens list` tells the others.",
    "placement": "of one norm. pre_branch: at the start of a branch. in_branch: inside of one. post_branch: at its "
    "end, before the addition. post_add: after the addition, on the stream. final: after the last block. embed: after "
    "the embedding. qk: on queries or keys.",
    "block": "one repetition of attention and feed-forward network. In figures and findings the first of a stack is "
    "block 1; in module paths and tables it is 0, as in Python.",
    "step": "one optimizer step, counted from 0; in a recording at initialization, one seed.",
    "end of training": ending.MEANING,
    "rms": "root mean square of the entries of a tensor.",
    "interval": "a range in brackets is a 95 % confidence interval, over seeds unless said otherwise.",
}
