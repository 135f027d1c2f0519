"""Make the pictures of README from real commands. Run: ``make pictures``."""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pymupdf
from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
GRADLENS = [sys.executable, "-m", "gradlens"]

SICK = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width, skip):
        super().__init__()
        self.norm, self.skip = nn.LayerNorm(width), skip
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        return x + self.ffn(self.norm(x)) if self.skip else self.ffn(self.norm(x))


class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, skip=number != 3) for number in range(6))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def loss_fn(output, batch):
    return (output - batch.roll(1, 1)).square().mean()


def build(width=64):
    return Model(width), torch.randn(8, 32, width), loss_fn
"""


def main() -> None:
    """Run what README shows, and keep what it prints."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, DOCS / "gallery" / "diverging.py"], cwd=folder, check=True, capture_output=True)
        session("diagnose", folder, "gradlens diagnose runs/mine", until=r"^. pass ")
        (Path(folder) / "model.py").write_text(SICK)
        session("inspect", folder, "gradlens inspect model.py:build -m width=96", until=r"^. pass |^\? ")
        with pymupdf.open(Path(folder) / "runs" / "mine.pdf") as pdf:
            pdf[0].get_pixmap(dpi=110).save(PICTURES / "report.png")


def session(name: str, folder: str, command: str, until: str) -> None:
    """Draw a command and what it prints as a terminal.

    Args:
        name: of the picture.
        folder: where the command runs.
        command: as a user would type it.
        until: what the first line matches that is left out, as all below it.
    """
    words = [*GRADLENS, *command.split()[1:]]
    printed = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False).stdout
    lines = printed.splitlines()
    end = next((number for number, line in enumerate(lines) if re.search(until, line)), len(lines))
    console = Console(record=True, width=max(map(len, lines[:end])) + 1, file=io.StringIO())
    console.print(Text(f"$ {command}\n", style="bold"))
    for line in [*lines[:end], "…"]:
        style = {"✗": "red", "▲": "yellow"}.get(line[:1], "")
        console.print(Text(line, style=style))
    drawn = console.export_svg(title="gradlens")
    # A font of each machine's own, instead of one that a browser would have to fetch.
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL).replace("Fira Code, ", "")
    (PICTURES / f"{name}.svg").write_text(drawn, "utf-8")


if __name__ == "__main__":
    main()
