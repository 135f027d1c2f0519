"""
Two implementations of one model
================================

You wrote a block anew, the loss comes out a little different, and nobody knows where. Give both the same weights and the same
batch, and ask for the first place whose output or gradient is not the same.
"""

import subprocess
import sys
from pathlib import Path

# %%
# Two files: torch's own encoder layer, and one by hand whose GELU is the approximation by tanh.

Path("runs").mkdir(exist_ok=True)
Path("runs/theirs.py").write_text(
    """
import torch
from torch import nn

def build():
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    return nn.Sequential(layer, nn.Linear(32, 32)), torch.randn(4, 10, 32)
"""
)
Path("runs/ours.py").write_text(
    """
import torch
from torch import nn

class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(32, 4, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(32, 64), nn.Linear(64, 32)
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.self_attn(h, h, h, need_weights=False)[0]
        return x + self.linear2(nn.functional.gelu(self.linear1(self.norm2(x)), approximate="tanh"))

def build():
    return nn.Sequential(Layer(), nn.Linear(32, 32)), torch.randn(4, 10, 32)
"""
)

# %%
# In a terminal: ``gradlens compare runs/theirs.py:build runs/ours.py:build --same-weights``.

words = [
    "compare",
    "runs/theirs.py:build",
    "runs/ours.py:build",
    "--same-weights",
    "--out",
    "runs/same",
    "-q",
]
print(
    subprocess.run(
        [sys.executable, "-m", "gradlens", *words], capture_output=True, text=True
    ).stdout
)
