"""The tasks: real data, a loss and a metric each, under the names of ``TASKS``."""

from gradlens.registry import Registry

TASKS = Registry(
    "task",
    {
        "lm": (
            "gradlens.lab.tasks.stdlib_source:StdlibSource",
            "next byte of the Python standard library's own source",
        ),
        "translation": (
            "gradlens.lab.tasks.translation:Translation",
            "LibreOffice's help from English to German, beam search and sacreBLEU; extra: tasks",
        ),
        "translation-de-en": ("gradlens.lab.tasks.translation:german_to_english", "the same from German to English"),
        "translation-en-vi": (
            "gradlens.lab.tasks.translation:english_to_vietnamese",
            "the same from English to Vietnamese",
        ),
        "sentences": (
            "gradlens.lab.tasks.sentences:Sentences",
            "whether a movie-review sentence is for or against a film",
        ),
        "images": ("gradlens.lab.tasks.images:Images", "the digit in an image of MNIST; a CNN: variants plain/NORM"),
        "images-mlp": (
            "gradlens.lab.tasks.other_models:FlatImages",
            "the same digits, pixels without an order; an MLP: variants plain/NORM",
        ),
        "lm-recurrent": (
            "gradlens.lab.tasks.other_models:RecurrentSource",
            "the bytes of lm, for an RNN, LSTM or GRU: variants plain/NORM",
        ),
        "parsing": (
            "gradlens.lab.tasks.parsing.task:Parsing",
            "dependency trees of English; an MLP: variants plain/NORM",
        ),
    },
)

__all__ = ["TASKS"]
