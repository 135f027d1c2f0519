"""The program called as a user would, in a folder of its own, at sizes that take a second or two."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from gradlens.cli.main import main
from tests.interrupts import TAKES_CTRL_C

#: One block would be no stack; two make depth profiles possible.
TINY = [
    "--layers",
    "2",
    "--width",
    "16",
    "--heads",
    "2",
    "--batch-size",
    "2",
    "--length",
    "16",
    "--device",
    "cpu",
]
SMALL_COMPARISON = [*TINY, "--steps", "6", "--seeds", "2"]

MODELS = """
import torch
from torch import nn

print("a line that a user's module prints")

def build(width: int = 8, norm: bool = True):
    last = nn.LayerNorm(width) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(4, width), last), torch.randn(3, 4)

def with_loss():
    model, batch = build()
    return model, batch, lambda output, batch: output.pow(3).mean()

def called_with_the_model():
    return *build(), lambda model, batch: model(batch).mean()

def misspelt_loss():
    return *build(), lambda output, batch: outptu.mean()

def labels_beside():
    model, batch = build()
    return model, (batch, torch.zeros(3)), lambda output, labels: (output - labels).mean()

class Labelled(nn.Sequential):
    def forward(self, x, labels):
        return super().forward(x)

def labels_in_the_batch():
    batch = torch.randn(3, 4), torch.zeros(3, 8)
    return Labelled(*build()[0]), batch, lambda output, batch: (output - batch[1]).square().mean()

def without_batch():
    return build()[0]

def batch():
    return torch.randn(5, 4)

def wrong_batch():
    return build()[0], torch.randn(3, 9)

def language_model(vocab: int, width: int = 8):
    return nn.Sequential(nn.Embedding(vocab, width), nn.LayerNorm(width), nn.Linear(width, vocab))

def too_few_logits(vocab: int):
    return nn.Sequential(nn.Embedding(vocab, 8), nn.LayerNorm(8)), torch.zeros(2, 3, dtype=torch.long)

def raises():
    raise RuntimeError("the first line\\nthe second line")

def returns_number():
    return 3

def needs(depth):
    return build()

number = 3
model = nn.LayerNorm(2)
"""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Threads only wait for each other on models this small, and badly so where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def typeset() -> bool:
    """Asked for by a test that needs a report's pages as they are."""
    return True


@pytest.fixture(autouse=True)
def pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One empty page in place of a report's, which take seconds and are looked at in ``tests/reporting``."""
    if "typeset" not in request.fixturenames:
        monkeypatch.setattr("gradlens.reporting.folder.pages", lambda comparison, content: b"%PDF-1.7 (not typeset)")
        monkeypatch.setattr("gradlens.reporting.pdf.pages", lambda comparison, content: b"%PDF-1.7 (not typeset)")


@pytest.fixture
def models(folder: Path) -> Path:
    """A user's file with build functions, good and bad."""
    path = folder / "models.py"
    path.write_text(MODELS)
    return path


Gradlens = Callable[..., Result]


@pytest.fixture
def gradlens() -> Gradlens:
    """Call the program in this process; a traceback on screen, or a code of a bug, fails the test."""

    def call(*arguments: Any) -> Result:
        if arguments[:1] == ("compare",) and "--jobs" not in arguments:
            arguments += ("--jobs", 1)  # in this process: a worker takes seconds to begin
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code in (0, 1, 2, 5), result.output
        assert "Traceback" not in result.output
        return result

    return call


def read_json(result: Result) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(result.stdout, parse_constant=refuse)


def start(*arguments: Any, **extra: Any) -> subprocess.Popen[str]:
    """Start the program as a process of its own, which Ctrl-C reaches."""
    command = [
        sys.executable,
        "-c",
        f"{TAKES_CTRL_C}; from gradlens.cli.main import main; main()",
        *map(str, arguments),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, stdout=pipe, stderr=pipe, env=environment, **extra)


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    out = tmp_path_factory.mktemp("finished") / "comparison"
    result = CliRunner().invoke(main, ["compare", "pre-ln", "post-ln", *SMALL_COMPARISON, "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def finished(_finished: Path, folder: Path) -> Path:
    """A finished comparison of pre-ln and post-ln, a copy for each test."""
    shutil.copytree(_finished, folder / "comparison")
    return Path("comparison")
