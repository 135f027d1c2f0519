"""``gradlens diagnose``: findings on recorded runs, for people, programs and CI."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import click

from gradlens.cli import options
from gradlens.cli.results import leave, read, read_reference, show
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
@options.verbosity
def command(runs: tuple[Path, ...], fail_on: str, as_format: str, reference: Path | None) -> None:
    """Print what is found in one or more RUN folders; the folder of a comparison stands for all its runs."""
    recordings, good = read(runs), read_reference(reference)
    from gradlens.analysis import compare

    comparison = compare(recordings, reference=good)
    if as_format == "junit":
        click.echo(junit(comparison.findings, fail_on))
    else:
        show(comparison, as_json=as_format == "json")
    leave(comparison, fail_on)


def junit(findings: Sequence["Finding"], fail_on: str) -> str:
    """Return findings as JUnit XML: a test case each, failed at ``fail_on`` or worse, skipped if open."""
    from gradlens.analysis import SEVERITY

    limit = SEVERITY.index("warn" if fail_on == "warn" else "fail")
    failed = [f for f in findings if SEVERITY.index(f.status) >= limit]
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
