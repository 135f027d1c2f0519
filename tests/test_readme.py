"""The README's code runs, and its commands are spelt as the program understands them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gradlens import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code.strip() for language, code in BLOCKS if language == "sh"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def gradlens(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradlens", *words]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_recording_a_training_run_works_as_printed(tmp_path):
    code = next(code for code in PYTHON if "gradlens.attach" in code)
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
def test_inspecting_ones_own_model_works_as_printed(line, tmp_path):
    (tmp_path / "model.py").write_text(next(code for code in PYTHON if "def build" in code))
    words = shlex.split(line)
    done = gradlens(*words[1:], "--seeds", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "layers.0.norm1" in done.stdout + done.stderr
    if "--probes" in words:
        assert "Take a learning rate of at most" in done.stdout
        assert "Not read" not in done.stdout


@pytest.mark.parametrize("line", [line for line in SHELL if "gradlens compare" in line])
def test_the_compare_commands_are_understood(line, tmp_path):
    words = shlex.split(line[line.index("gradlens compare") :])
    small = ["--steps", "4", "--layers", "1", "--width", "16", "--seeds", "2", "--batch-size", "2", "--out", "run"]
    done = gradlens(*words[1:], *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "compare.pdf").exists()


def test_links_and_pictures_of_the_readme_exist():
    targets = re.findall(r"\]\(((?!https?:)[^)]+)\)", README)
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def test_the_readme_never_installs_the_other_project_of_that_name():
    assert not re.search(r"pip install [^&\n]*\bgradlens", README)
