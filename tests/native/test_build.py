"""The package's own build: with a C compiler the wheel holds the native core, without one it is pure Python."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path) -> Path:
    """What a wheel is made of, in a place of its own."""
    pytest.importorskip("hatchling")
    own = tmp_path / "tree"
    for name in ("gradlens", "analyses"):
        shutil.copytree(ROOT / name, own / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, own / name)
    return own


def wheel(tree: Path, compiler: str) -> tuple[str, list[str], str]:
    """The wheel's name, the core's files in it, and what its build said."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    environment = {**os.environ, "CC": compiler}
    said = subprocess.run(build, cwd=tree, env=environment, check=True, capture_output=True, text=True)
    (made,) = (tree / "dist").glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        names = [Path(name).name for name in archive.namelist() if name.startswith("gradlens/native/")]
    return made.name, names, said.stdout + said.stderr


def test_without_a_compiler_the_wheel_is_pure_and_the_build_says_so_in_one_line(tree):
    name, files, said = wheel(tree, "/no/such/compiler")
    assert name.endswith("-py3-none-any.whl")
    assert "core.c" in files
    assert not any(file.endswith(".so") for file in files)
    assert said.count("without its native core") == 1


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_with_a_compiler_the_wheel_holds_the_core_of_this_very_source(tree):
    name, files, _ = wheel(tree, "cc -O0")
    assert "-py3-none-" in name
    assert not name.endswith("-any.whl")
    from gradlens.native.building import compiled

    assert [file for file in files if file.endswith(".so")] == [compiled().name]
