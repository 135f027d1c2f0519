"""Who may import whom: the table of the design, held against every file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: room -> rooms of this project it may import (its own always).
MAY = {
    "gradlens": {"gradlens.*"},  # __init__ names the public face, lazily
    "gradlens.errors": set(),
    "gradlens.text": set(),
    "gradlens.registry": {"gradlens.errors"},
    "gradlens.batches": {"gradlens.errors"},
    "gradlens.outputs": {"gradlens.errors"},
    "gradlens.recording": {"gradlens", "gradlens.errors", "gradlens.text"},  # the face, for ``Recording.plot``
    "gradlens.theory": {"gradlens.errors"},
    "gradlens.recognition": {"gradlens.errors"},
    "gradlens.native": set(),
    "gradlens.lens": {
        "gradlens", "gradlens.batches", "gradlens.errors", "gradlens.native", "gradlens.outputs",
        "gradlens.recognition", "gradlens.recording",
    },
    "gradlens.probes": {
        "gradlens.batches", "gradlens.errors", "gradlens.outputs", "gradlens.recording", "gradlens.registry",
        "gradlens.theory",
    },
    "gradlens.lab": set(),
    "gradlens.lab.norms": {"gradlens.errors", "gradlens.recognition", "gradlens.registry"},
    "gradlens.lab.models": {"gradlens.errors", "gradlens.registry", "gradlens.lab.norms"},
    "gradlens.lab.tasks": {"gradlens.batches", "gradlens.errors", "gradlens.registry", "gradlens.lab.models"},
    "gradlens.lab.training": {
        "gradlens", "gradlens.batches", "gradlens.errors", "gradlens.registry", "gradlens.recording", "gradlens.lens",
        "gradlens.lab.models", "gradlens.probes", "gradlens.lab.tasks",
    },
    "gradlens.lab.operands": {
        "gradlens.batches", "gradlens.errors", "gradlens.recording", "gradlens.lab.models", "gradlens.lab.tasks",
        "gradlens.lab.training",
    },
    "gradlens.lab.runs": {
        "gradlens.batches", "gradlens.errors", "gradlens.lens", "gradlens.probes", "gradlens.recording",
        "gradlens.registry", "gradlens.lab.operands", "gradlens.lab.tasks", "gradlens.lab.training",
    },
    "gradlens.lab.studies": {
        "gradlens.errors", "gradlens.registry", "gradlens.lab.runs", "gradlens.lab.tasks", "gradlens.lab.training",
    },
    "gradlens.analysis": {"gradlens.errors", "gradlens.recording", "gradlens.text"},
    "gradlens.reporting": {"gradlens", "gradlens.errors", "gradlens.recording", "gradlens.analysis", "gradlens.text"},
    "gradlens.integrations": {
        "gradlens", "gradlens.errors", "gradlens.recording", "gradlens.lens", "gradlens.analysis", "gradlens.reporting",
    },
    "gradlens.__main__": {"gradlens.cli"},
    "gradlens.cli": {"gradlens", "gradlens.*"},
    "analyses": {"gradlens.errors", "gradlens.recording", "gradlens.analysis", "gradlens.theory"},
}  # fmt: skip
#: Rooms whose files must not import torch, anywhere in them.
WITHOUT_TORCH = ("gradlens.recording", "gradlens.theory", "gradlens.analysis", "gradlens.reporting", "analyses")


def room_of(module: str) -> str:
    parts = module.split(".")
    if parts[0] != "gradlens":
        return parts[0]
    return ".".join(parts[: 3 if parts[1:2] == ["lab"] else 2])


def imports(source: str) -> set[str]:
    """Every module that a source imports, at any depth, but for type checking."""
    tree = ast.parse(source)
    only_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "gradlens":
                found |= {f"gradlens.{alias.name}" for alias in node.names if (ROOT / "gradlens" / alias.name).is_dir()}
    return found


def violations(module: str, source: str) -> list[str]:
    room = room_of(module)
    allowed = MAY[room] | {room}
    wrong = []
    for name in imports(source):
        root, target = name.split(".")[0], room_of(name)
        if root == "torch" and room in WITHOUT_TORCH:
            wrong.append(f"{module} imports {name}")
        if root == "analyses" and room != "analyses":
            wrong.append(f"{module} imports analyses by name")
        elif root == "gradlens" and target not in allowed and "gradlens.*" not in allowed:
            wrong.append(f"{module} imports {name}")
    return wrong


def files() -> list[Path]:
    return sorted([*(ROOT / "gradlens").rglob("*.py"), *(ROOT / "analyses").rglob("*.py")])


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    assert violations(module, path.read_text("utf-8")) == []


def test_the_instrument_needs_nothing_of_the_laboratory():
    instrument = {room for room in MAY if room.split(".")[1:2] not in ([], ["lab"], ["cli"], ["__main__"])}
    assert [room for room in instrument if any(may.startswith("gradlens.lab") for may in MAY[room])] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gradlens.recording.store", "import torch"),
        ("gradlens.lens.attaching", "def f():\n    from gradlens.lab.tasks import TASKS"),
        ("gradlens.lab.norms.adanorm", "from gradlens.lens import attach"),
        ("gradlens.reporting.pdf", "def f():\n    import analyses"),
        ("analyses.depth_profile.numbers", "from gradlens.lens.lens import Lens"),
        ("gradlens.analysis.comparison", "from gradlens import lens"),
    ],
)
def test_a_planted_wrong_import_is_caught(module, source):
    assert violations(module, source)


@pytest.mark.parametrize(
    "code",
    [
        "import gradlens",
        "from gradlens import load, Recording, Finding, report, compare, GradlensError",
        "import analyses; analyses.ANALYSES",
        "from gradlens.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass",
    ],
)
def test_reading_and_helping_import_neither_torch_nor_pyplot(code):
    check = "import sys\nassert not {'torch', 'matplotlib.pyplot'} & set(sys.modules), 'imported'"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_room_is_missing_from_the_table():
    modules = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files())
    assert {room_of(module.removesuffix(".__init__")) for module in modules} <= set(MAY)


def test_a_checkout_that_nobody_installed_has_a_version_all_the_same():
    code = "import importlib.metadata as m\ndef none(name): raise m.PackageNotFoundError(name)\nm.version = none\n"
    code += "import gradlens; assert gradlens.__version__ == '0+uninstalled'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
