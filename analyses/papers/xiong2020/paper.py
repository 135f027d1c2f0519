"""The study's paper: its two arrangements, and what its findings ask for."""

from collections.abc import Sequence

from analyses.papers.measured import ARRANGEMENTS, arrangement
from gradlens.recording import Recording

XIONG = "Xiong et al. 2020 (2002.04745)"
#: Its two arrangements, and what it calls them.
PAPER = {name: ARRANGEMENTS[name] for name in ("post-ln", "pre-ln")}
#: ``--seeds`` of ``gradlens reproduce`` is for training runs; how many networks are measured at initialization is part
#: of what the measurement is.
MORE_PROBED = "Probe more networks: raise the seeds of the study's measurements (--seeds is for its training runs)."
MORE_NETWORKS = (
    "Measure more networks: `gradlens compare post-ln pre-ln --init-only --seeds 30`, or raise the seeds of the "
    "study's measurements (--seeds of reproduce is for its training runs)."
)
DEEPER = "Measure deeper networks (--budget medium)."
OWN_THEORY = "Compare with what theory says for this very network."


def of_paper(recordings: Sequence[Recording]) -> list[Recording]:
    """Return those with one of the paper's own two arrangements."""
    return [recording for recording in recordings if arrangement(recording) in PAPER]
