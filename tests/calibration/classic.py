"""The thresholds that are passed from hand to hand, on the same recordings."""

import numpy as np
import numpy.typing as npt

from gradlens.recording import Recording

#: Mean |g| of a parameter below which its gradient is said to vanish.
VANISHED = 1e-7
#: Gradient norm of the first block over that of the last.
LEAST, MOST = 1e-3, 70.0
#: A spike: standard deviations above the mean of the steps before, of which so many are looked at.
DEVIATIONS, MEMORY, FIRST = 6.0, 128, 20


def classic(recording: Recording) -> list[str]:
    """Return which of them a recording crosses: ``vanished``, ``ratio``, ``spike``."""
    steps = recording.steps
    grad_norm = recording.params.groupby("step")["grad_norm"].apply(lambda norms: float((norms**2).sum() ** 0.5))
    found = {
        "vanished": _vanished(recording),
        "ratio": _ratio(recording),
        "spike": recording.meta["kind"] != "init"
        and (_spikes(steps["loss"].to_numpy(float)) or _spikes(grad_norm.to_numpy(float))),
    }
    return [name for name, crossed in found.items() if crossed]


def _vanished(recording: Recording) -> bool:
    params = recording.params.dropna(subset="grad_norm")
    # The root mean square, which mean |g| is not above.
    return bool((params["grad_norm"] / params["numel"] ** 0.5 < VANISHED).any())


def _ratio(recording: Recording) -> bool:
    """Judge the mean over steps."""
    sites, params = recording.sites, recording.params
    blocks = sites[sites["kind"] == "block"].sort_values("order")["site"].tolist()
    if len(blocks) < 2:
        return False
    first, last = (
        params[params["name"].str.startswith(f"{path}.")]
        .groupby("step")["grad_norm"]
        .apply(lambda x: (x**2).sum() ** 0.5)
        for path in (blocks[0], blocks[-1])
    )
    with np.errstate(all="ignore"):
        ratio = float(np.nanmean(first) / np.nanmean(last))
    return not LEAST <= ratio <= MOST


def _spikes(values: npt.NDArray[np.float64]) -> bool:
    for step in range(FIRST, len(values)):
        before = values[max(0, step - MEMORY) : step]
        if values[step] > before.mean() + DEVIATIONS * before.std():
            return True
    return False
