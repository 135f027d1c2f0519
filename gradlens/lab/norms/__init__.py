"""The normalization layers under study, by name; ``gradlens.swap`` puts them into a model of the user's.

Each entry is called as ``norm(width, eps=1e-5)`` and normalizes the last dimension of its input.
A new norm is one file here and one line in `NORMS`. Torch is imported when an entry is used.

A norm may say in an attribute ``theory`` which theory of whole networks holds with it, "layernorm" (its output has mean
0 and second moment 1) or "rmsnorm" (second moment 1); it is not inherited.
"""

from gradlens.registry import Registry

NORMS = Registry(
    "norm",
    {
        "layernorm": ("torch.nn:LayerNorm", "LayerNorm with gain and bias (Ba et al. 2016)"),
        "layernorm-simple": (
            "gradlens.lab.norms.layernorm_simple:LayerNormSimple",
            "LayerNorm without gain and bias (Xu et al. 2019)",
        ),
        "detachnorm": (
            "gradlens.lab.norms.detachnorm:DetachNorm",
            "LayerNorm-simple forward; no gradient through mean and variance (Xu et al. 2019)",
        ),
        "detachnorm-mean": (
            "gradlens.lab.norms.detachnorm:DetachMeanNorm",
            "LayerNorm-simple forward; no gradient through the mean (Xu et al. 2019)",
        ),
        "detachnorm-variance": (
            "gradlens.lab.norms.detachnorm:DetachVarianceNorm",
            "LayerNorm-simple forward; no gradient through the variance (Xu et al. 2019)",
        ),
        "adanorm": (
            "gradlens.lab.norms.adanorm:AdaNorm",
            "C(1 − k y) y for y = LayerNorm-simple (Xu et al. 2019)",
        ),
        "adanorm-undetached": (
            "gradlens.lab.norms.adanorm:UndetachedAdaNorm",
            "AdaNorm forward; the gradient goes through the factor C(1 − k y) too",
        ),
        "layernorm-simple-unbiased": (
            "gradlens.lab.norms.unbiased:LayerNormSimpleUnbiased",
            "layernorm-simple as the code of Xu et al. has it: deviation over H − 1, eps outside the root",
        ),
        "detachnorm-unbiased": ("gradlens.lab.norms.unbiased:DetachNormUnbiased", "detachnorm with that deviation"),
        "detachnorm-mean-unbiased": (
            "gradlens.lab.norms.unbiased:DetachMeanNormUnbiased",
            "detachnorm-mean with that deviation",
        ),
        "detachnorm-variance-unbiased": (
            "gradlens.lab.norms.unbiased:DetachVarianceNormUnbiased",
            "detachnorm-variance with that deviation",
        ),
        "adanorm-unbiased": ("gradlens.lab.norms.unbiased:AdaNormUnbiased", "adanorm with that deviation"),
        "rmsnorm": ("gradlens.lab.norms.rmsnorm:RMSNorm", "RMSNorm with gain (Zhang & Sennrich 2019)"),
        "scalenorm": ("gradlens.lab.norms.scalenorm:ScaleNorm", "x/‖x‖ with one gain (Nguyen & Salazar 2019)"),
        "none": ("torch.nn:Identity", "no normalization"),
    },
)


def theory_of(name: str) -> str | None:
    """Return which norm's theory covers one of these, ``layernorm`` or ``rmsnorm``; None where none does."""
    # Torch's own cannot say so.
    return "layernorm" if name == "layernorm" else vars(NORMS[name]).get("theory")
