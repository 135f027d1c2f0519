"""``gradlens list``: what there is."""

import click

from gradlens.cli import options, terminal
from gradlens.cli.explain import codes
from gradlens.lab.models.variants import ARRANGEMENTS, WITHOUT_NORM, default_norm, variant_name
from gradlens.lab.norms import NORMS
from gradlens.lab.studies import STUDIES
from gradlens.lab.tasks import TASKS
from gradlens.native.building import measures
from gradlens.registry import Registry
from gradlens.text import columns

#: A line is as long as what it says.
_ANY = 10_000
_MEASURED = {
    "native": "On the CPU the native core measures.",
    "torch": "On the CPU torch's operations measure: the native core was not compiled, or is switched off.",
}


@click.command("list")
@options.as_json
@options.verbosity
def command(as_json: bool) -> None:
    """Show what there is: arrangements and norms, which make variants, tasks, analyses, studies, and findings."""
    from gradlens.analysis.discover import discover

    groups = {
        "arrangements": _lines(ARRANGEMENTS),
        "norms": _lines(NORMS),
        "tasks": _lines(TASKS),
        "analyses": {analysis.name: analysis.question for analysis in discover()},
        "studies": _lines(STUDIES),
        "findings": codes(),
    }
    if as_json:
        terminal.result_json({"variants": variants(), **groups, "measured_by": measures()})
        return
    example = f"{next(iter(ARRANGEMENTS))}/{list(NORMS)[1]}"
    heads = {
        "arrangements": f"Variants: ARRANGEMENT or ARRANGEMENT/NORM, such as {example}",
        "norms": f"Norms (layernorm where none is named; {' and '.join(WITHOUT_NORM)} have none)",
        "studies": "Papers to reproduce: gradlens reproduce PAPER",
        "findings": "Findings: gradlens explain CODE",
    }
    parts = []
    for group, lines in groups.items():
        width = terminal.width() if group == "findings" else _ANY
        parts.append(f"{heads.get(group, group.capitalize())}\n{columns(list(lines.items()), indent=2, width=width)}")
    terminal.result("\n\n".join([*parts, _MEASURED[measures()]]))


def variants() -> list[str]:
    """Return the shortest name of every variant there is."""
    return [
        variant_name(arrangement, norm)
        for arrangement in ARRANGEMENTS
        for norm in ([default_norm(arrangement)] if arrangement in WITHOUT_NORM else NORMS)
    ]


def _lines(registry: Registry) -> dict[str, str]:
    return {name: registry.about(name) for name in registry}
