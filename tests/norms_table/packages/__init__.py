"""What is measured: the entries of each package, by the name that pip knows."""

from tests.norms_table.entry import Entry
from tests.norms_table.packages import generation, of_transformers, speech, structure, text, vision

PACKAGES: dict[str, tuple[Entry, ...]] = {
    **text.PACKAGES,
    **of_transformers.PACKAGES,
    **vision.PACKAGES,
    **generation.PACKAGES,
    **speech.PACKAGES,
    **structure.PACKAGES,
}
