"""Names of variants: an arrangement of the block and, after a slash, the norm in it."""

from gradlens.errors import UnknownNameError
from gradlens.norms import NORMS
from gradlens.registry import Registry

ARRANGEMENTS = Registry(
    "arrangement",
    {
        "pre-ln": (
            "gradlens.models.arrangements:PreLN",
            "norm before each branch, inside the skip; one more norm after the last block",
        ),
        "post-ln": ("gradlens.models.arrangements:PostLN", "norm after each addition of branch and skip"),
    },
)


def parse_variant(name: str) -> tuple[str, str]:
    """Split a variant's name into arrangement and norm; the norm is ``layernorm`` where none is named.

    >>> parse_variant("post-ln")
    ('post-ln', 'layernorm')
    >>> parse_variant("pre-ln/detachnorm")
    ('pre-ln', 'detachnorm')

    Raises:
        UnknownNameError: no arrangement or no norm has this name; the message holds the near ones.
    """
    arrangement, slash, norm = name.partition("/")
    if not slash:
        norm = "layernorm"
    if arrangement not in ARRANGEMENTS:
        raise UnknownNameError("arrangement", arrangement, ARRANGEMENTS)
    if norm not in NORMS:
        raise UnknownNameError("norm", norm, NORMS)
    return arrangement, norm
