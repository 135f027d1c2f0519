"""``gradlens diagnose``: findings on recorded runs, for people, programs and CI."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import click

from gradlens.cli import options
from gradlens.cli.results import deciding, leave, read, read_reference, show
from gradlens.errors import GradlensError
from gradlens.text import printable, printable_lines

if TYPE_CHECKING:
    from gradlens.analysis import Finding


@click.command("diagnose")
@options.runs
@click.option(
    "--fail-on",
    type=click.Choice(["fail", "warn"]),
    default="fail",
    show_default=True,
    help="Exit with 1 where a finding is at least that bad.",
)
@click.option(
    "--format",
    "as_format",
    type=click.Choice(["text", "json", "junit"]),
    default="text",
    show_default=True,
    help="What to print on stdout.",
)
@options.reference
@options.margin
@options.verbosity
def command(runs: tuple[Path, ...], fail_on: str, as_format: str, reference: Path | None, margin: float | None) -> None:
    """Print what is found in one or more RUN folders; the folder of a comparison stands for all its runs.

    With --reference and --margin each run is held against the reference, and --fail-on asks only whether it parts from
    it by more: --reference runs/good --margin 5%.
    """
    if margin is not None and reference is None:
        raise GradlensError("--margin holds runs against one that went well: name it with --reference RUN.")
    recordings, good = read(runs), read_reference(reference)
    from gradlens.analysis import compare

    comparison = compare(recordings, reference=good, margin=margin)
    if as_format == "junit":
        click.echo(junit(comparison.findings, fail_on, deciding(comparison, margin)))
    else:
        show(comparison, as_json=as_format == "json")
    leave(comparison, fail_on, margin)


def junit(findings: Sequence["Finding"], fail_on: str, asked: Sequence["Finding"] | None = None) -> str:
    """Return findings as JUnit XML: a test case each, failed at ``fail_on`` or worse, skipped if open.

    Args:
        findings: all that are told.
        fail_on: ``warn`` or ``fail``.
        asked: those that may fail; by default all.
    """
    from gradlens.analysis import SEVERITY

    limit = SEVERITY.index("warn" if fail_on == "warn" else "fail")
    failed = [f for f in (findings if asked is None else asked) if SEVERITY.index(f.status) >= limit]
    skipped = [f for f in findings if f.status in ("inconclusive", "not applicable")]
    suite = ElementTree.Element(
        "testsuite",
        name="gradlens",
        tests=str(len(findings)),
        failures=str(len(failed)),
        skipped=str(len(skipped)),
    )
    for finding in findings:
        name = " ".join(filter(None, (finding.code, finding.subject)))
        case = ElementTree.SubElement(suite, "testcase", classname=f"gradlens.{finding.analysis}", name=name)
        if finding in failed:
            failure = ElementTree.SubElement(case, "failure", type=finding.status, message=finding.claim)
            failure.text = "\n".join(finding.remedies)
        elif finding in skipped:
            ElementTree.SubElement(case, "skipped", message=f"{finding.status}: {finding.claim}")
        else:
            ElementTree.SubElement(case, "system-out").text = f"{finding.status}: {finding.claim}"
    for element in suite.iter():
        element.attrib.update({name: printable(value) for name, value in element.attrib.items()})
        element.text = element.text and printable_lines(element.text)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)
