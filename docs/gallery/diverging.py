"""
My loss diverges: what broke first?
===================================

A language model of our own reads the source of Python's ``argparse``. It learns, and then its loss jumps and never comes back.
What happened is one line of the training loop; the loss alone does not say which.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import gradlens
from gradlens.reporting import verdict_text

# %%
# The model has four Pre-LN blocks, the data are bytes of a file that every Python has.


class Model(nn.Module):
    def __init__(self, width: int = 64, blocks: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            layer, blocks, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, 256)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.blocks(self.embed(tokens), mask=mask, is_causal=True))


text = torch.frombuffer(
    bytearray(Path(argparse.__file__).read_bytes()), dtype=torch.uint8
).long()


def batch() -> torch.Tensor:
    return torch.stack(
        [text[start : start + 65] for start in torch.randint(len(text) - 65, (8,))]
    )


# %%
# After sixty steps the job is resumed on eight machines. The learning rate is scaled with their number, as it should be, but
# in two places: once in the configuration and once in the script. Two lines record the run: the ``with`` and ``lens.step``.

torch.manual_seed(0)
model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

with gradlens.attach(model, out="runs/mine", optimizer=optimizer) as lens:
    for step in range(120):
        if step == 60:
            optimizer.param_groups[0]["lr"] *= 8 * 8
        tokens = batch()
        logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lens.step(loss=loss)

# %%
# In a terminal one would ask ``gradlens diagnose runs/mine``. The same in Python:

found = gradlens.compare([gradlens.load("runs/mine")])
print(verdict_text(found))

# %%
# The first cause is what broke first. What follows from it stands below it, not beside it:

for cause in found.causes:
    print(cause.finding.code, cause.finding.claim)
    for symptom in cause.symptoms:
        print("   follows:", symptom.code, symptom.claim)

# %%
# And the report, whose first page draws the loss and the gradient norm with the step marked:

gradlens.report([gradlens.load("runs/mine")], "runs/mine.pdf")
