"""Advice to arrange a model's blocks otherwise, only where it would be news."""

#: Arrangements whose skip is the identity, or scaled with depth: neither Pre-LN nor DeepNorm nor Admin is news there.
_SKIP_IS_SOUND = frozenset(
    {
        "pre-ln",
        "peri-ln",
        "sub-ln",
        "layernorm-scaling",
        "mix-ln",
        "deepnorm",
        "admin",
        "rezero",
        "norm-free",
    }
)
#: Networks without residual blocks.
_WITHOUT_SKIP = "plain"


def arrange_otherwise(variant: str, *advice: str) -> tuple[str, ...]:
    """Return the advice on norms and skips; none for a variant that has followed it, or has no residual blocks.

    Args:
        variant: ``arrangement[/norm]``, or what else a recording calls its model: its arrangement is unknown then.
        advice: sentences.
    """
    arrangement = variant.partition("/")[0]
    return () if arrangement in _SKIP_IS_SOUND or arrangement == _WITHOUT_SKIP else advice
