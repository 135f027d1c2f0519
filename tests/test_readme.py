"""The code of README and docs runs, and their commands are spelt as the program understands them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from gradlens import load
from gradlens.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = {path: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES[ROOT / "README.md"]
FOUND = [block for page in PAGES.values() for block in re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)]
BLOCKS = list(dict.fromkeys(FOUND))  # what stands on two pages is tried once
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code.strip() for language, code in BLOCKS if language == "sh"]
#: What an example's text says that it shows.
EXPECTED = {
    "diverging": "GL408 mine: the learning rate jumps at step 60",
    "norm_of_ones_own": "1 norm found, 1 fired",
    "two_implementations": "the output of 0.linear2",
    "post_ln_and_warm_up": "the gradient is out of balance over depth",
}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def gradlens(tmp_path, monkeypatch):
    """Call the program in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda *words: CliRunner().invoke(main, words)
    torch.set_num_threads(threads)
    sys.modules.pop("model", None)


def test_recording_a_training_run_works_as_printed(tmp_path):
    code = next(code for code in PYTHON if "lens.audit" in code)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 norm found, 1 fired in 10 recorded steps" in done.stdout
    assert (tmp_path / "runs" / "mine.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_several_processes_record_as_printed(tmp_path):
    code = next(code for code in PYTHON if "torchrun" in code)
    (tmp_path / "train.py").write_text(code)
    start = re.search(r"torchrun (.*)", code)[1].split()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *start]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    recording = load(tmp_path / "runs" / "sharded")
    assert recording.meta["processes"]["recorded"] == 2
    assert set(recording.norms["rank"]) == {0, 1}


@pytest.mark.parametrize("line", [one for line in SHELL for one in line.splitlines() if " inspect model.py" in one])
def test_inspecting_ones_own_model_works_as_printed(line, gradlens, tmp_path):
    (tmp_path / "model.py").write_text(next(code for code in PYTHON if "def build" in code))
    words = shlex.split(line)
    done = gradlens(*words[1:], "--seeds", "2")
    assert done.exit_code == 0, done.output
    assert "layers.0.norm1" in done.stdout + done.stderr
    if "--probes" in words:
        assert "Take a learning rate of at most" in done.stdout
        assert "Not read" not in done.stdout


@pytest.mark.parametrize("line", [line for line in SHELL if "gradlens compare" in line and "runs/" not in line])
def test_the_compare_commands_are_understood(line, gradlens, tmp_path):
    words = shlex.split(line[line.index("gradlens compare") :])
    small = ["--steps", "4", "--layers", "1", "--width", "16", "--seeds", "2", "--batch-size", "2", "--out", "run"]
    done = gradlens(*words[1:], *small)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "compare.pdf").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(((?!https?:)[^)]+)\)", PAGES[page]):
        assert (page.parent / target).exists(), target
    for entry in re.findall(r"^(?!generated|gallery)\w+$", PAGES[page], re.MULTILINE) if page.stem == "index" else ():
        assert (page.parent / f"{entry}.md").exists(), entry


def test_every_page_is_in_the_index():
    listed = (ROOT / "docs" / "index.md").read_text("utf-8").split()
    assert {page.stem for page in PAGES if page.parent.name == "docs"} <= {*listed, "index"}


@pytest.mark.parametrize("example", sorted((ROOT / "docs" / "gallery").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs_as_it_stands(example, tmp_path):
    for needed in re.findall(r"^import (duckdb|polars)$", example.read_text("utf-8"), re.MULTILINE):
        pytest.importorskip(needed)
    done = subprocess.run([sys.executable, example], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = EXPECTED.get(example.stem, "")
    assert expected in done.stdout


def test_the_readme_never_installs_the_other_project_of_that_name():
    assert not re.search(r"pip install [^&\n]*\bgradlens", README)
