"""The tasks: real data, a loss and a metric each, under the names of ``TASKS``."""

from gradlens.registry import Registry

TASKS = Registry(
    "task",
    {
        "lm": (
            "gradlens.tasks.stdlib_source:StdlibSource",
            "next byte of the Python standard library's own source",
        ),
        "translation": (
            "gradlens.tasks.translation:Translation",
            "LibreOffice's help from English to German, beam search and sacreBLEU; extra: tasks",
        ),
        "translation-de-en": ("gradlens.tasks.translation:german_to_english", "the same from German to English"),
        "translation-en-vi": (
            "gradlens.tasks.translation:english_to_vietnamese",
            "the same from English to Vietnamese",
        ),
        "sentences": ("gradlens.tasks.sentences:Sentences", "whether a movie-review sentence is for or against a film"),
        "images": ("gradlens.tasks.images:Images", "the digit in an image of MNIST; a CNN: variants plain/NORM"),
        "parsing": ("gradlens.tasks.parsing.task:Parsing", "dependency trees of English; an MLP: variants plain/NORM"),
    },
)

__all__ = ["TASKS"]
