"""Live measurements beyond hooks, one file each: what the loss, its curvature or a block does at a point."""

from gradlens.registry import Registry

#: Each takes (model, batch, loss_fn, seed) and returns a list of readings. A new probe is a line here and its file.
#: What a learning rate is answered from needs several batches and an optimizer too: ``gradlens.probes.answer``.
PROBES = Registry(
    "probe",
    {
        "sharpness": ("gradlens.probes.sharpness:readings", "the largest eigenvalue of the loss' Hessian"),
        "amplification": (
            "gradlens.probes.amplification:readings",
            "how much a small random change of the blocks' weights changes the output",
        ),
        "block_jacobian": (
            "gradlens.probes.block_jacobian:readings",
            "the largest singular value of the first and the last block's Jacobian",
        ),
        "concentration": (
            "gradlens.probes.concentration:readings",
            "the share of tokens whose energy is far from the mean",
        ),
        "scale_free": (
            "gradlens.probes.scale_free:readings",
            "the parameters whose size, rows' sizes, or common offset of rows the loss does not depend on",
        ),
    },
)

__all__ = ["PROBES"]
