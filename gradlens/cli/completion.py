"""What a shell offers after TAB: variants, tasks, codes, columns and papers; click knows the shells."""

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _names(names: Callable[[], Iterable[tuple[str, str]]], *, or_files: bool = False) -> Completer:
    """Return what completes one of names, each with a line on it; where none fits perhaps a file."""

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name, help=about) for name, about in names() if name.startswith(incomplete)]
        return found or ([CompletionItem(incomplete, type="file")] if or_files else [])

    return complete


def _variants() -> Iterable[tuple[str, str]]:
    from gradlens.cli.list import variants
    from gradlens.lab.models.variants import ARRANGEMENTS

    return [(name, ARRANGEMENTS.about(name) if name in ARRANGEMENTS else "") for name in variants()]


def _tasks() -> Iterable[tuple[str, str]]:
    from gradlens.lab.tasks import TASKS

    return [(name, TASKS.about(name)) for name in TASKS]


def _papers() -> Iterable[tuple[str, str]]:
    from gradlens.lab.studies import STUDIES

    return [(name, STUDIES.about(name)) for name in STUDIES]


def _explained() -> Iterable[tuple[str, str]]:
    from gradlens.cli.explain import codes
    from gradlens.recording.schema import PUBLIC

    columns = [(f"{table}.{column.name}", column.meaning) for table, known in PUBLIC.items() for column in known]
    return [*codes().items(), *columns]


variant = _names(_variants, or_files=True)
task = _names(_tasks)
paper = _names(_papers)
explained = _names(_explained)
