"""Xiong et al. 2020 beside the measurement: Lemma 2's bounds of the stream, the law for stream and gradient.

Symbols: q_l is the stream's second moment after block l; W2_l the second matrix of that block's FFN. The law
is ‖dL/dW2_l‖ = c/√q_l with one constant c a stack (``gradlens.theory.xiong2020.gradient_ratio_by_block``).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analyses.depth_profile.whole_network import norm_theory
from analyses.intervals import Array, Interval, jackknife_interval, t_interval
from gradlens.theory import xiong2020

Row = dict[str, Any]


class DepthTheory:
    """What the paper predicts for one model, where its assumptions hold.

    Args:
        model: the ``model`` entry of a recording's metadata.

    Attributes:
        applies: whether it is a Transformer of the kind and initialization that the paper treats.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        self.arrangement = str(model.get("arrangement", ""))
        treated = model.get("family") == "transformer" and self.arrangement in ("pre-ln", "post-ln")
        self.applies = treated and model.get("activation") == "relu" and norm_theory(model) is not None
        self.ratio = float(model.get("ffn") or 1) / float(model.get("width") or 1)
        self._has_memory = model.get("kind") == "encoder-decoder"

    def attends_to_memory(self, stack: str) -> bool:
        """Whether the stack's blocks have cross-attention, which the law does not cover."""
        return self._has_memory and stack.startswith("decoder")

    def lemma2(self, stack: str, depths: list[int]) -> Iterator[Row]:
        """Yield the range of the stream's rms at each depth."""
        if not self.applies:
            return
        if self.arrangement == "post-ln":
            level = xiong2020.stream_second_moment_post(self.ratio)
            ends = {depth: (level, level) for depth in depths if depth > 0}
        else:
            low, high = self._pre_ln(stack, max(depths))
            ends = {depth: (low[depth], high[depth]) for depth in depths}
        for depth, bounds in ends.items():
            yield {"x": depth, "low": float(np.sqrt(bounds[0])), "high": float(np.sqrt(bounds[1]))}

    def stream_summary(self, stack: str, q: pd.DataFrame) -> Iterator[Row]:
        """Yield the number that Lemma 2 speaks of, with the lemma's range for it.

        For Post-LN that is the mean of q_l over the blocks, for others the growth of q_l a block (least
        squares).

        Args:
            stack: path of the stack.
            q: second moments [seeds, depths]; the columns are the blocks applied.
        """
        depths = [int(depth) for depth in q.columns]
        if len(depths) < 2:
            return
        if self.applies and self.arrangement == "post-ln":
            level = t_interval(q[[depth for depth in depths if depth > 0]].mean(axis=1))
            expected = xiong2020.stream_second_moment_post(self.ratio)
            yield {"quantity": "stream second moment", **level.row()}
            yield {"quantity": "lemma 2", "low": expected, "high": expected}
            return
        growth = t_interval(np.polyfit(depths, q.to_numpy().T, 1)[0])
        yield {"quantity": "stream growth a block", **growth.row()}
        if self.applies:
            low, high = self._pre_ln(stack, 1)
            yield {"quantity": "lemma 2", "low": float(low[1] - low[0]), "high": float(high[1] - high[0])}

    def _pre_ln(self, stack: str, depth: int) -> tuple[Array, Array]:
        return xiong2020.stream_second_moment_pre(depth, self.ratio, 2 if self.attends_to_memory(stack) else 1)

    def law(self, stack: str, gradient: pd.DataFrame, q: pd.DataFrame) -> tuple[dict[int, float], list[Row]]:
        """Return the law's curve through the measured q_l, and the numbers that say how well it holds.

        Args:
            stack: path of the stack.
            gradient: ‖dL/dW2_l‖ [seeds, blocks]; the columns are block numbers from 1.
            q: second moments [seeds, depths].

        Returns:
            Block to c/√q_l, with c the geometric mean of c_l over blocks and seeds; and rows of the summary.
            Both empty where the law does not cover the stack, or a block has no gradient.
        """
        blocks = [block for block in gradient.columns if block in q.columns]
        if not self.applies or self.attends_to_memory(stack) or len(blocks) < 2:
            return {}, []
        moment = q.loc[gradient.index, blocks].to_numpy()
        constant: Array = gradient[blocks].to_numpy() * np.sqrt(moment)
        if not constant.all():
            return {}, []
        profile = np.exp(np.log(moment).mean(axis=0))
        shape = xiong2020.gradient_ratio_by_block(profile)
        curve = np.exp(np.log(constant).mean()) / np.sqrt(profile[0]) * shape
        flatness = jackknife_interval(constant, variation)
        rows: list[Row] = [
            {"quantity": "variation of c", **_not_below_zero(flatness).row()},
            {"quantity": "law factor a block", "value": float(shape[-1]) ** (1 / (len(shape) - 1))},
        ]
        return dict(zip(map(int, blocks), curve.tolist(), strict=True)), rows


def variation(constant: Array) -> float:
    """Return the coefficient of variation over blocks of c_l, of its mean over seeds.

    Each seed's profile is divided by its own mean first: the seeds' losses differ in scale, which says
    nothing of depth.

    Args:
        constant: c_l [seeds, blocks].
    """
    profile = (constant / constant.mean(axis=1, keepdims=True)).mean(axis=0)
    return float(profile.std(ddof=1))


def _not_below_zero(interval: Interval) -> Interval:
    """A spread corrected for its bias may come out below zero, which a spread is not."""
    return interval.mapped(lambda end: end if np.isnan(end) else max(end, 0.0))
