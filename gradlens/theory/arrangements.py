"""Where the norms stand in a block, as the theory needs it.

An arrangement is a function of signals that reads like the block it stands for. A new one is an entry of
``ARRANGEMENTS``; which of the laboratory's blocks it predicts, these say themselves, and their recordings carry it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from gradlens.theory.signals import Signal, Tape, added, scaled


@dataclass(kw_only=True)
class Place:
    """One sub-layer of a block, as its rule sees it.

    Attributes:
        tape: of the stack.
        entered: what the block was given.
        block: index of the block, from 0.
        blocks: L, in the stack.
        branches: in a block.
        drop: dropout, at the end of each branch.
        last: whether it is the block's last sub-layer.
        alpha: factor of the skip path, where the arrangement has one.
        added: what the last norm after an addition was given; None before there is one.
    """

    tape: Tape
    entered: Signal
    block: int
    blocks: int
    branches: int
    drop: "Branch"
    last: bool = False
    alpha: float = 1.0
    added: Signal | None = None

    def norm(self, signal: Signal) -> Signal:
        """Divide by σ, the root of the second moment: the mean over features is zero but for O(1/d)."""
        return scaled(signal, self.tape.pairs.own(signal.products) ** -0.5)

    def norm_after_addition(self, *signals: Signal) -> Signal:
        """Add, and normalize the sum."""
        self.added = added(*signals)
        return self.norm(self.added)


Branch = Callable[[Signal], Signal]
Rule = Callable[[Place, Signal, Branch], Signal]


def pre_ln(place: Place, x: Signal, branch: Branch) -> Signal:
    """Return x + f(LN(x)) (Xiong et al. 2020, Table 1)."""
    return added(x, place.drop(branch(place.norm(x))))


def post_ln(place: Place, x: Signal, branch: Branch) -> Signal:
    """Return LN(αx + f(x)); α is 1 in Xiong et al. 2020, fixed in DeepNorm, profiled in Admin."""
    return place.norm_after_addition(scaled(x, place.alpha), place.drop(branch(x)))


def peri_ln(place: Place, x: Signal, branch: Branch) -> Signal:
    """Return x + LN(f(LN(x))) (Kim et al. 2025, 2502.02732; Sandwich-LN of CogView)."""
    return added(x, place.drop(place.norm(branch(place.norm(x)))))


def mix_ln(place: Place, x: Signal, branch: Branch) -> Signal:
    """Return Post-LN in the first quarter of the blocks, Pre-LN in the others (Li et al. 2024, 2412.13795)."""
    return (post_ln if place.block < place.blocks // 4 else pre_ln)(place, x, branch)


def layernorm_scaling(place: Place, x: Signal, branch: Branch) -> Signal:
    """Return x + f(LN(x)/√l), l the block's number from 1 (Sun et al. 2025, 2502.05795)."""
    return added(x, place.drop(branch(scaled(place.norm(x), (place.block + 1) ** -0.5))))


def b2t(place: Place, x: Signal, branch: Branch) -> Signal:
    """Return Post-LN whose last norm is also given the block's input (Takase et al. 2022, 2206.00330)."""
    return place.norm_after_addition(x, place.drop(branch(x)), *([place.entered] if place.last else []))


def rezero(place: Place, x: Signal, branch: Branch) -> Signal:
    """Return x + 0·f(x) (Bachlechner et al. 2020, 2003.04887)."""
    return added(x, scaled(place.drop(branch(x)), 0.0))


def norm_free(place: Place, x: Signal, branch: Branch) -> Signal:
    """Return x + f(x)/√(branches of the stack) (Noci et al. 2022, 2206.03126)."""
    return added(x, scaled(place.drop(branch(x)), (place.blocks * place.branches) ** -0.5))


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """What the theory knows of an arrangement.

    Attributes:
        rule: of a sub-layer.
        final_norm: whether a norm follows the last block.
        normalized_output: whether a norm is the last thing before the head, in a block or after it.
        constants: (blocks, stack) to α of the skip path and β of the matrices V, O, W1, W2; the stack is
            ``"single"``, ``"encoder"`` or ``"decoder"``.
        inner_norm: whether each branch has a norm before its last matrix.
        plain_cross: whether cross-attention has neither β nor that norm.
        profiled: whether α is found for each sub-layer in a pass of Post-LN (Admin).
    """

    rule: Rule
    final_norm: bool = False
    normalized_output: bool = True
    constants: Callable[[int, str], tuple[float, float]] = lambda blocks, stack: (1.0, 1.0)
    inner_norm: bool = False
    plain_cross: bool = False
    profiled: bool = False


def deepnorm_constants(blocks: int, stack: str) -> tuple[float, float]:
    """Return α and β of DeepNorm for as many encoder as decoder blocks (Wang et al. 2022, 2203.00555, table 1)."""
    if stack == "encoder":
        return 0.81 * blocks ** (5 / 16), 0.87 * blocks ** (-5 / 16)
    if stack == "decoder":
        return (3 * blocks) ** 0.25, (12 * blocks) ** -0.25
    return (2 * blocks) ** 0.25, (8 * blocks) ** -0.25


def sub_ln_constants(blocks: int, stack: str) -> tuple[float, float]:
    """Return 1 and the factor of V, O, W1, W2 in Sub-LN, but of cross-attention (Wang et al. 2022, 2210.06423, 3.2)."""
    if stack == "encoder":
        return 1.0, float(np.sqrt(np.log(3 * blocks) * np.log(2 * blocks) / 3))
    return 1.0, float(np.sqrt(np.log((3 if stack == "decoder" else 2) * blocks)))


ARRANGEMENTS: Mapping[str, Arrangement] = {
    "pre-ln": Arrangement(rule=pre_ln, final_norm=True),
    "post-ln": Arrangement(rule=post_ln),
    "peri-ln": Arrangement(rule=peri_ln, final_norm=True),
    "deepnorm": Arrangement(rule=post_ln, constants=deepnorm_constants),
    "admin": Arrangement(rule=post_ln, profiled=True),
    "mix-ln": Arrangement(rule=mix_ln, final_norm=True),
    "layernorm-scaling": Arrangement(rule=layernorm_scaling, final_norm=True),
    "b2t": Arrangement(rule=b2t),
    "rezero": Arrangement(rule=rezero, normalized_output=False),
    "sub-ln": Arrangement(rule=pre_ln, final_norm=True, constants=sub_ln_constants, inner_norm=True, plain_cross=True),
    "norm-free": Arrangement(rule=norm_free, normalized_output=False),
}
