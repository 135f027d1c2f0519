"""
Post-LN, with a warm-up and without
===================================

``nn.TransformerEncoderLayer`` puts its norms behind the additions (Post-LN) unless it is told otherwise. Twelve such blocks at
a rate of 1e-3 learn how often each byte comes, and then nothing more. The gradient says why.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import gradlens
from gradlens.reporting import verdict_text

text = torch.frombuffer(
    bytearray(Path(argparse.__file__).read_bytes()), dtype=torch.uint8
).long()


class Model(nn.Module):
    def __init__(self, width: int = 64, blocks: int = 12) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, blocks)
        self.head = nn.Linear(width, 256)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.blocks(self.embed(tokens), mask=mask, is_causal=True))


def train(name: str, warm_up: int) -> gradlens.Recording:
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (warm_up + 1), 1.0)
    )
    with gradlens.attach(model, out=f"runs/{name}", optimizer=optimizer) as lens:
        for _ in range(150):
            tokens = torch.stack(
                [
                    text[start : start + 65]
                    for start in torch.randint(len(text) - 65, (8,))
                ]
            )
            logits = model(tokens[:, :-1])
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1), tokens[:, 1:].flatten()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            lens.step(loss=loss)
    return gradlens.load(f"runs/{name}")


# %%
# Without a warm-up:

without = train("without", warm_up=0)
print(verdict_text(gradlens.compare([without])))

# %%
# With one of a hundred steps:

with_one = train("with", warm_up=100)
print(verdict_text(gradlens.compare([with_one])))

# %%
# The gradient of the last block over the first one's, along both runs:

for run in (without, with_one):
    params = run.params[run.params["name"].str.startswith("blocks.layers.")]
    block = params["name"].str.split(".").str[2].astype(int)
    norms = (
        params.assign(block=block, squares=params["grad_norm"] ** 2)
        .groupby(["step", "block"])["squares"]
        .sum()
        ** 0.5
    )
    ratio = norms.unstack("block")[11] / norms.unstack("block")[0]
    print(
        run.label,
        {step: round(float(ratio[step]), 1) for step in (0, 10, 50, 149)},
        "loss",
        run.steps["loss"].iloc[-1],
    )
