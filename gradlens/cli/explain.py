"""``gradlens explain``: what a finding means, and which there are."""

import re
import textwrap
from itertools import groupby
from typing import TYPE_CHECKING

import click

from gradlens.cli import completion, options, terminal
from gradlens.errors import GradlensError
from gradlens.text import columns

if TYPE_CHECKING:
    from gradlens.analysis import Analysis
    from gradlens.recording.column import Column

_FIRST_SENTENCE = re.compile(r"(?<=[.?!]) (?=[A-Z])")


@click.command("explain")
@click.argument("code", metavar="[CODE]", required=False, shell_complete=completion.explained)
@options.as_json
@options.verbosity
def command(code: str | None, as_json: bool) -> None:
    """Tell what the finding CODE means, such as GL102, or a column such as norms.kept; without a code, list all."""
    questions = _questions()
    origins = {known: analysis for analysis in questions for known in analysis.codes}
    if code is None:
        _list(questions, as_json)
        return
    if found := _columns(code):
        _print_columns(found, as_json)
        return
    if code.upper() not in origins:
        # The nearest by spelling would be any of a hundred.
        hundreds = {start: list(codes) for start, codes in groupby(sorted(origins), key=lambda known: known[:-2])}
        near = hundreds.get(code.upper()[:3]) or [
            " ... ".join(dict.fromkeys((codes[0], codes[-1]))) for codes in hundreds.values()
        ]
        raise GradlensError(
            f"There is no finding {code!r}; there are {', '.join(near)}. A report prints its findings' codes."
        )
    analysis, code = origins[code.upper()], code.upper()
    meaning = " ".join(analysis.codes[code].split())
    if as_json:
        facts = {"analysis": analysis.name, "question": analysis.question, "reference": analysis.reference}
        terminal.result_json({"code": code, "meaning": meaning, **facts})
        return
    paragraphs = [f"{code}, from {analysis.name}: {analysis.question}", meaning]
    paragraphs += [f"See {analysis.reference}"] if analysis.reference else []
    terminal.result("\n\n".join(textwrap.fill(text, terminal.width()) for text in paragraphs))


def codes() -> dict[str, str]:
    """Return every code with the first sentence of what it means."""
    return dict(sorted(pair for question in _questions() for pair in _first_sentences(question)))


def _questions() -> "list[Analysis]":
    from gradlens.analysis.discover import discover, papers

    return [*discover(), *(question for paper in papers().values() for question in paper)]


def _first_sentences(question: "Analysis") -> list[tuple[str, str]]:
    said = {code: _FIRST_SENTENCE.split(" ".join(meaning.split()))[0] for code, meaning in question.codes.items()}
    return sorted(said.items())


def _columns(name: str) -> "list[tuple[str, Column]]":
    """Return the columns of a name, with or without their table's before it."""
    from gradlens.recording.schema import PUBLIC

    known = [(table, column) for table, columns in PUBLIC.items() for column in columns]
    return [(table, column) for table, column in known if name in (column.name, f"{table}.{column.name}")]


def _print_columns(found: "list[tuple[str, Column]]", as_json: bool) -> None:
    if as_json:
        keys = ("name", "dtype", "unit", "meaning")
        terminal.result_json([{"table": t, **{k: getattr(column, k) for k in keys}} for t, column in found])
        return
    said = []
    for table, column in found:
        unit = f", in {column.unit}" if column.unit else ""
        said.append(f"{table}.{column.name} ({column.dtype}{unit}): {column.meaning}")
    terminal.result("\n\n".join(textwrap.fill(text, terminal.width()) for text in said))


def _list(questions: "list[Analysis]", as_json: bool) -> None:
    """Print every code with the first sentence of what it means, question by question."""
    if as_json:
        terminal.result_json(
            [
                {"code": code, "analysis": question.name, "meaning": " ".join(meaning.split())}
                for question in questions
                for code, meaning in sorted(question.codes.items())
            ]
        )
        return
    parts = []
    for question in questions:
        if rows := _first_sentences(question):
            parts.append(f"{question.name}: {question.question}\n{columns(rows, indent=2, width=terminal.width())}")
    terminal.result("\n\n".join(parts))
