"""``gradlens explain``: what a finding means, and which there are."""

import re
import textwrap
from itertools import groupby
from typing import TYPE_CHECKING

import click

from gradlens.cli import options, terminal
from gradlens.errors import GradlensError
from gradlens.text import columns

if TYPE_CHECKING:
    from gradlens.analysis import Analysis


@click.command("explain")
@click.argument("code", metavar="[CODE]", required=False)
@options.as_json
@options.verbosity
def command(code: str | None, as_json: bool) -> None:
    """Tell what the finding CODE means, such as GL102; without a code, which findings there are."""
    from gradlens.analysis.discover import discover, papers

    questions = [*discover(), *(question for paper in papers().values() for question in paper)]
    origins = {known: analysis for analysis in questions for known in analysis.codes}
    if code is None:
        _list(questions, as_json)
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
        rows = [(code, _FIRST_SENTENCE.split(" ".join(meaning.split()))[0]) for code, meaning in question.codes.items()]
        if rows:
            parts.append(
                f"{question.name}: {question.question}\n{columns(sorted(rows), indent=2, width=terminal.width())}"
            )
    terminal.result("\n\n".join(parts))


_FIRST_SENTENCE = re.compile(r"(?<=[.?!]) (?=[A-Z])")
