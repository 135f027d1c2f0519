"""The normalization layers under study, by name.

Each entry is called as ``norm(width, eps=1e-5)`` and normalizes the last dimension of its input.
A new norm is one file here and one line in `NORMS`.
"""

from gradlens.registry import Registry

NORMS = Registry(
    "norm",
    {
        "layernorm": ("torch.nn:LayerNorm", "LayerNorm with gain and bias (Ba et al. 2016)"),
        "layernorm-simple": (
            "gradlens.norms.layernorm_simple:LayerNormSimple",
            "LayerNorm without gain and bias (Xu et al. 2019)",
        ),
        "detachnorm": (
            "gradlens.norms.detachnorm:DetachNorm",
            "LayerNorm-simple forward; no gradient through mean and variance (Xu et al. 2019)",
        ),
        "detachnorm-mean": (
            "gradlens.norms.detachnorm:DetachMeanNorm",
            "LayerNorm-simple forward; no gradient through the mean (Xu et al. 2019)",
        ),
        "detachnorm-variance": (
            "gradlens.norms.detachnorm:DetachVarianceNorm",
            "LayerNorm-simple forward; no gradient through the variance (Xu et al. 2019)",
        ),
        "adanorm": (
            "gradlens.norms.adanorm:AdaNorm",
            "C(1 − k y) y for y = LayerNorm-simple (Xu et al. 2019)",
        ),
        "rmsnorm": ("gradlens.norms.rmsnorm:RMSNorm", "RMSNorm with gain (Zhang & Sennrich 2019)"),
        "none": ("torch.nn:Identity", "no normalization"),
    },
)

__all__ = ["NORMS"]
