"""Live measurements beyond hooks, one file each: what the loss, its curvature or a block does at a point."""

from gradlens.registry import Registry

PROBES = Registry(
    "probe",
    {
        "learning_rate": (
            "gradlens.probes.learning_rate:learning_rate_limit",
            "the largest stable learning rate at a point: edge of stability over curvature",
        ),
        "trial": ("gradlens.probes.trial:trial", "the largest learning rate that a few steps on a copy survive"),
        "critical_step": (
            "gradlens.probes.critical_step:critical_step",
            "the smallest step along the optimizer's update that raises the loss",
        ),
        "sharpness": ("gradlens.probes.sharpness:sharpness", "the largest eigenvalue of the loss' Hessian"),
        "preconditioned_sharpness": (
            "gradlens.probes.sharpness:preconditioned_sharpness",
            "the same as an adaptive optimizer sees it",
        ),
        "amplification": (
            "gradlens.probes.amplification:amplification",
            "how much a small random change of the weights changes the output",
        ),
        "block_jacobian": (
            "gradlens.probes.block_jacobian:block_jacobian",
            "the largest singular value of a block's Jacobian",
        ),
        "concentration": (
            "gradlens.probes.concentration:concentration",
            "the share of tokens whose energy is far from the mean",
        ),
    },
)

__all__ = ["PROBES"]
