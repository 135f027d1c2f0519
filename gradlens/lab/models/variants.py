"""Names of variants: an arrangement of the block and, after a slash, the norm in it."""

from gradlens.errors import ModelError, UnknownNameError
from gradlens.lab.norms import NORMS
from gradlens.registry import Registry

ARRANGEMENTS = Registry(
    "arrangement",
    {
        "pre-ln": (
            "gradlens.lab.models.arrangements.pre_ln:PreLN",
            "norm before each branch, inside the skip; one more norm after the last block",
        ),
        "post-ln": (
            "gradlens.lab.models.arrangements.post_ln:PostLN",
            "norm after each addition of branch and skip",
        ),
        "peri-ln": (
            "gradlens.lab.models.arrangements.peri_ln:PeriLN",
            "Pre-LN with one more norm at the end of each branch (Kim et al. 2025)",
        ),
        "sub-ln": (
            "gradlens.lab.models.arrangements.sub_ln:SubLN",
            "Pre-LN with a second norm inside each branch, and larger weights (Wang et al. 2022, Magneto)",
        ),
        "layernorm-scaling": (
            "gradlens.lab.models.arrangements.layernorm_scaling:LayerNormScaling",
            "Pre-LN with the norms of block l divided by √l (Sun et al. 2025)",
        ),
        "mix-ln": (
            "gradlens.lab.models.arrangements.mix_ln:MixLN",
            "Post-LN in the first quarter of the blocks, Pre-LN in the others (Li et al. 2024)",
        ),
        "deepnorm": (
            "gradlens.lab.models.arrangements.deepnorm:DeepNorm",
            "Post-LN with a heavier skip and smaller weights the deeper it is (Wang et al. 2022, DeepNet)",
        ),
        "admin": (
            "gradlens.lab.models.arrangements.admin:Admin",
            "Post-LN with a learned factor on each skip, set by one forward pass (Liu et al. 2020)",
        ),
        "b2t": (
            "gradlens.lab.models.arrangements.b2t:B2T",
            "Post-LN with the block's input added once more before its last norm (Takase et al. 2022)",
        ),
        "rezero": (
            "gradlens.lab.models.arrangements.rezero:ReZero",
            "no norm; a learned factor on each branch, 0 at initialization (Bachlechner et al. 2020)",
        ),
        "norm-free": (
            "gradlens.lab.models.arrangements.norm_free:NormFree",
            "no norm; branches divided by the root of their number (Noci et al. 2022)",
        ),
        "plain": (
            "gradlens.lab.models.plain:Plain",
            "a network without residual blocks, as in the tasks images and parsing: norm in each hidden layer",
        ),
    },
)
#: The arrangement of networks that have no residual block to arrange.
PLAIN = "plain"
#: The arrangements of blocks that have no place for a norm.
WITHOUT_NORM = ("rezero", "norm-free")


def default_norm(arrangement: str) -> str:
    """Return the norm that is meant where a variant's name has none."""
    return "none" if arrangement in WITHOUT_NORM else "layernorm"


def parse_variant(name: str) -> tuple[str, str]:
    """Split a variant's name into arrangement and norm; where none is named it is that of ``default_norm``.

    >>> parse_variant("post-ln")
    ('post-ln', 'layernorm')
    >>> parse_variant("pre-ln/detachnorm")
    ('pre-ln', 'detachnorm')
    >>> parse_variant("rezero")
    ('rezero', 'none')

    Raises:
        UnknownNameError: no arrangement or no norm has this name; the message holds the near ones.
    """
    arrangement, slash, norm = name.partition("/")
    if not slash:
        norm = default_norm(arrangement)
    if arrangement not in ARRANGEMENTS:
        raise UnknownNameError("arrangement", arrangement, ARRANGEMENTS)
    if norm not in NORMS:
        raise UnknownNameError("norm", norm, NORMS)
    return arrangement, norm


def block_variant(name: str) -> tuple[str, str]:
    """Split the name of a variant that has residual blocks, as ``parse_variant`` does.

    Raises:
        UnknownNameError: as ``parse_variant``.
        ModelError: the arrangement is ``plain``, or has no norm and the name has one.
    """
    arrangement, norm = parse_variant(name)
    if arrangement == PLAIN:
        raise ModelError(
            f"A Transformer must have its residual blocks arranged, as pre-ln, post-ln or another of `gradlens list`; "
            f"got {name!r}, which is for networks without such blocks (tasks images and parsing). Take "
            f"{variant_name('pre-ln', norm)!r} here, or another --task."
        )
    if arrangement in WITHOUT_NORM and norm != "none":
        raise ModelError(
            f"The arrangement {arrangement!r} has no norm, so none can be named for it; got {name!r}. Take "
            f"{arrangement!r}, or an arrangement with norms, such as {variant_name('pre-ln', norm)!r}."
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
            f"{name!r}, which arranges the blocks of a Transformer. Take {variant_name(PLAIN, norm)!r} here, or "
            f"another --task."
        )
    return norm


def variant_name(arrangement: str, norm: str) -> str:
    """Return the shortest name of a variant: the arrangement alone where the norm is the one that it then means."""
    return arrangement if norm == default_norm(arrangement) else f"{arrangement}/{norm}"
