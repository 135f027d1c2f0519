"""The templates of ``docs/templates`` run: each, registered for a test, keeps to what is asked of all of its kind."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import gradlens

#: Name of a template to the tests that run over its registry.
CONTRACTS = {
    "rmsnorm-simple": [
        "lab/norms/test_norm_registry.py", "lab/norms/test_swapping.py", "lens/test_attach.py",
        "lens/test_zoo_norms.py", "lens/test_architecture.py",
    ],
    "half-ln": [
        "lab/models/test_transformer.py", "lab/models/test_variants.py", "lab/models/test_padding.py",
        "lab/tasks/test_beam_search.py", "analyses/depth_profile/test_every_arrangement.py", "theory/test_networks.py",
        "lens/test_architecture.py",
    ],
    "zen": ["lab/tasks/test_tasks.py"],
    "final_loss": ["analyses/test_registry.py"],
    "steps": ["cli/test_every_command.py"],
}  # fmt: skip
HERE = Path(__file__).parent


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_template_keeps_to_the_contract_of_its_kind(name):
    files = [str(HERE / file) for file in CONTRACTS[name]]
    code = [sys.executable, "-m", "pytest", "-p", "tests.with_templates", "-p", "no:cacheprovider", "-k", name, *files]
    done = subprocess.run(code, capture_output=True, text=True, cwd=HERE.parent, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 2


def test_every_template_is_run():
    templates = {path for path in (HERE.parent / "docs/templates").iterdir() if path.is_dir()}
    assert len(templates) == len(CONTRACTS)


def run_steps(*arguments) -> subprocess.CompletedProcess[str]:
    code = f"import tests.with_templates; from gradlens.cli.main import main; main({['steps', *map(str, arguments)]!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parent, check=False)


def test_the_command_of_the_template_answers_people_and_programs_and_names_a_mistake(tmp_path):
    net = lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))  # noqa: E731
    gradlens.at_init(net, lambda seed: torch.randn(3, 4), seeds=[0, 1], out=tmp_path / "run", label="a")
    assert run_steps(tmp_path / "run").stdout == "a: 2 steps\n"
    assert json.loads(run_steps(tmp_path / "run", "--json").stdout) == {"label": "a", "steps": 2}
    wrong = run_steps(tmp_path / "none")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("Error: A run folder must exist")
