"""What is measured: the entries of each package, by the name that pip knows."""

from tests.norms_table.entry import Entry
from tests.norms_table.packages import generation, speech, structure, text, vision

PACKAGES: dict[str, tuple[Entry, ...]] = {
    **text.PACKAGES,
    **vision.PACKAGES,
    **generation.PACKAGES,
    **speech.PACKAGES,
    **structure.PACKAGES,
}
