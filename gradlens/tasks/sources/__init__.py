"""Where real data comes from: one file a data set; ``located`` finds what is here, without torch.

Data lives in a folder of its own below ``$GRADLENS_DATA`` (by default ``~/.cache/gradlens/data``). Nothing is
fetched unasked: a task that lacks its data says the command that brings it.
"""

from gradlens.registry import Registry
from gradlens.tasks.sources.store import about, located

SOURCES = Registry(
    "data set",
    {
        "mnist": ("gradlens.tasks.sources.mnist:SOURCE", "handwritten digits, for the task images"),
        "movie-reviews": ("gradlens.tasks.sources.movie_reviews:SOURCE", "scored sentences, for the task sentences"),
        "ud-ewt": ("gradlens.tasks.sources.ud_ewt:SOURCE", "dependency trees of English, for the task parsing"),
        "libreoffice-help": (
            "gradlens.tasks.sources.libreoffice_help:SOURCE",
            "a manual in several languages, for the task translation",
        ),
    },
)

__all__ = ["SOURCES", "about", "located"]
