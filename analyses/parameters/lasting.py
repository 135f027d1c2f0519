"""From which step on something holds until the end."""

import pandas as pd


def since(holds: pd.Series) -> int | None:
    """Return the first recorded step from which on something holds in every recorded step; None where it does not.

    Args:
        holds: whether it does, by step, in order.
    """
    broken = holds[~holds.astype(bool)].index
    after = holds.index if broken.empty else holds.index[holds.index > broken[-1]]
    return int(after[0]) if len(after) else None


def earliest(steps: pd.Series) -> int | None:
    """Return the first of several onsets; None where one of them is of the whole run."""
    return None if steps.isna().any() else int(steps.min())


def onset(step: float | None, first: float) -> int | None:
    """Return a step as the onset of a finding; None where it is the first one, from which the whole run is so."""
    return None if step is None or pd.isna(step) or step <= first else int(step)
