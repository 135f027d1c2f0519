"""``gradlens explain``: what a finding means."""

import textwrap
from itertools import groupby

import click

from gradlens.cli import options, terminal
from gradlens.errors import GradlensError


@click.command("explain")
@click.argument("code", metavar="CODE")
@options.as_json
@options.verbosity
def command(code: str, as_json: bool) -> None:
    """Tell what the finding CODE means, such as GL102."""
    from gradlens.analysis.discover import discover, papers

    questions = [*discover(), *(question for paper in papers().values() for question in paper)]
    origins = {known: analysis for analysis in questions for known in analysis.codes}
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
