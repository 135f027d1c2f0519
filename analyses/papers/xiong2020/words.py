"""The study's paper, and what its findings ask for."""

PAPER = "Xiong et al. 2020 (2002.04745)"
#: ``--seeds`` of ``gradlens reproduce`` is for training runs; how many networks are measured at initialization is part
#: of what the measurement is.
MORE_PROBED = "Probe more networks: raise the seeds of the study's measurements (--seeds is for its training runs)."
MORE_NETWORKS = (
    "Measure more networks: `gradlens compare post-ln pre-ln --init-only --seeds 30`, or raise the seeds of the "
    "study's measurements (--seeds of reproduce is for its training runs)."
)
DEEPER = "Measure deeper networks (--budget medium)."
OWN_THEORY = "Compare with what theory says for this very network."
