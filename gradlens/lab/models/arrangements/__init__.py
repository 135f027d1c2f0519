"""Arrangements of a Transformer block: where its norms stand relative to branch and skip, and what scales either.

One file each, named as in `gradlens.lab.models.variants.ARRANGEMENTS`, with the paper's equation. A new one is a
subclass of `Block`, which says where its norms are (`placements`), how a sub-layer puts stream, norm and branch
together (`sublayer`), whether its skip is sound and which theory covers it, and one line in that registry. Recordings
carry the last two, which is how analyses know of it.
"""

from gradlens.lab.models.arrangements.block import Block, Branch

__all__ = ["Block", "Branch"]
