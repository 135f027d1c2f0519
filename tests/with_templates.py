"""A plug-in of pytest: the templates of ``docs/templates`` stand in their registries, as if they had been copied there.

Run ``python -m pytest -p tests.with_templates -k NAME`` and the tests that run over a registry run over them too.
"""

import importlib
import tomllib
from pathlib import Path

import analyses
from analyses import limits
from gradlens.cli.main import COMMANDS
from gradlens.lab.models import ARRANGEMENTS
from gradlens.lab.norms import NORMS
from gradlens.lab.tasks import TASKS

TEMPLATES = Path(__file__).parents[1] / "docs" / "templates"
#: Folder of templates to the package that they are copied to.
ROOMS = {
    "norms": "gradlens.lab.norms",
    "arrangements": "gradlens.lab.models.arrangements",
    "tasks": "gradlens.lab.tasks",
    "analyses": "analyses",
    "cli": "gradlens.cli",
}
for folder, room in ROOMS.items():
    importlib.import_module(room).__path__.append(str(TEMPLATES / folder))
NORMS._entries["rmsnorm-simple"] = ("gradlens.lab.norms.rmsnorm_simple:RMSNormSimple", "a template")
ARRANGEMENTS._entries["half-ln"] = ("gradlens.lab.models.arrangements.half_ln:HalfLN", "a template")
TASKS._entries["zen"] = ("gradlens.lab.tasks.zen:Zen", "a template")
COMMANDS["steps"] = "A template."
limits._limits().update(tomllib.loads((TEMPLATES / "analyses" / "final_loss" / "limits.toml").read_text("utf-8")))
analyses.ANALYSES = (*analyses.ANALYSES, importlib.import_module("analyses.final_loss").ANALYSIS)
