"""``gradlens explain``: what a finding means."""

import textwrap

import click

from gradlens.cli import options, terminal
from gradlens.errors import UnknownNameError


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
        raise UnknownNameError("finding", code, origins)
    analysis, code = origins[code.upper()], code.upper()
    meaning = " ".join(analysis.codes[code].split())
    if as_json:
        facts = {"analysis": analysis.name, "question": analysis.question, "reference": analysis.reference}
        terminal.result_json({"code": code, "meaning": meaning, **facts})
        return
    paragraphs = [f"{code}, from {analysis.name}: {analysis.question}", meaning]
    paragraphs += [f"See {analysis.reference}"] if analysis.reference else []
    terminal.result("\n\n".join(textwrap.fill(text, terminal.width()) for text in paragraphs))
