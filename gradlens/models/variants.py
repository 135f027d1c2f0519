"""Names of variants: an arrangement of the block and, after a slash, the norm in it."""

from gradlens.errors import ModelError, UnknownNameError
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
        "plain": (
            "gradlens.models.plain:Plain",
            "a network without residual blocks, as in the tasks images and parsing: norm in each hidden layer",
        ),
    },
)
#: The arrangement of networks that have no residual block to arrange.
PLAIN = "plain"


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


def block_variant(name: str) -> tuple[str, str]:
    """Split the name of a variant that has residual blocks, as ``parse_variant`` does.

    Raises:
        UnknownNameError: as ``parse_variant``.
        ModelError: the arrangement is ``plain``.
    """
    arrangement, norm = parse_variant(name)
    if arrangement == PLAIN:
        others = [other for other in ARRANGEMENTS if other != PLAIN]
        raise ModelError(
            f"A Transformer must have its residual blocks arranged, as {' or '.join(others)}; got {name!r}, which "
            f"is for networks without such blocks (tasks images and parsing). Take {_named(others[0], norm)!r} "
            f"here, or another --task."
        )
    return arrangement, norm


def plain_variant(name: str) -> str:
    """Return the norm of a variant without residual blocks, such as ``plain/adanorm``.

    Raises:
        UnknownNameError: as ``parse_variant``.
        ModelError: the arrangement is one of residual blocks.
    """
    arrangement, norm = parse_variant(name)
    if arrangement != PLAIN:
        raise ModelError(
            f"A network without residual blocks (tasks images and parsing) must have the arrangement 'plain'; got "
            f"{name!r}, which arranges the blocks of a Transformer. Take {_named(PLAIN, norm)!r} here, or another "
            f"--task."
        )
    return norm


def _named(arrangement: str, norm: str) -> str:
    return arrangement if norm == "layernorm" else f"{arrangement}/{norm}"
