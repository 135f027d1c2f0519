"""In what two comparisons differ, by their manifests."""

from collections.abc import Mapping
from typing import Any

from gradlens.lab.training.settings import changes


def changed(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return a phrase for everything that decides a comparison's numbers and differs.

    Args:
        there: the manifest of the folder.
        here: the one that is asked for.
    """
    old, new = dict(there.get("settings") or {}), dict(here["settings"])
    if old.get("init_only") and not new["init_only"]:
        old["init_only"] = False  # training is added to what was measured: nothing is lost
    before, now = ({o["operand"]: o for o in manifest.get("operands") or ()} for manifest in (there, here))
    found = changes(old, new)
    if list(before) != list(now):
        found.append(f"operands (were {', '.join(before)}; now {', '.join(now)})")
    for name in before.keys() & now.keys():
        found += [f"{what} of {name}" for what in _operand_changes(before[name], now[name])]
    if (there.get("task") or {}).get("sha256") != (here.get("task") or {}).get("sha256"):
        versions = ((manifest.get("task") or {}).get("version") for manifest in (there, here))
        found.append("the task's data (was {}, now {})".format(*versions))
    return found


def _operand_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = changes(before.get("arguments") or {}, now.get("arguments") or {})
    if before.get("source_sha256") != now.get("source_sha256"):
        found.append("the source file, which was edited since,")
    return found
