"""The tasks: real data, a loss and a metric each, under the names of ``TASKS``."""

from gradlens.registry import Registry

TASKS = Registry(
    "task",
    {
        "lm": (
            "gradlens.tasks.stdlib_source:StdlibSource",
            "next byte of the Python standard library's own source",
        ),
    },
)

__all__ = ["TASKS"]
