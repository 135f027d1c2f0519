"""
Reading a recording with duckdb and polars
==========================================

A finished run is a folder of Parquet files, one a table. Nothing of gradlens is needed to read it, nor torch.
"""

import duckdb
import polars
import pyarrow.parquet as pq
import torch
from torch import nn

import gradlens

model = nn.Sequential(
    nn.Linear(16, 64),
    nn.LayerNorm(64),
    nn.ReLU(),
    nn.Linear(64, 64),
    nn.LayerNorm(64),
    nn.Linear(64, 1),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

with gradlens.attach(model, out="runs/read", optimizer=optimizer) as lens:
    for _ in range(50):
        x = torch.randn(32, 16)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lens.step(loss=loss)

# %%
# The files hold sums, which add over steps, calls and processes; a share is the quotient of two of them. Which norm removes most
# of its gradient, over the last ten steps?

print(
    duckdb.sql(
        """
        select site, sum(energy_recentering) / sum(energy_g) as recentering, sum(energy_kept) / sum(energy_g) as kept
        from 'runs/read/norms.parquet' where step >= 40 group by site order by kept
        """
    )
)

# %%
# The norms' gradient beside the loss, with polars:

norms = polars.read_parquet("runs/read/norms.parquet")
steps = polars.read_parquet("runs/read/steps.parquet")
norms = norms.with_columns(grad_output_norm=polars.col("energy_grad_output").sqrt())
print(
    norms.join(steps, on="step")
    .select("step", "site", "grad_output_norm", "loss")
    .tail(4)
)

# %%
# Each column says what it means:

for field in list(pq.read_schema("runs/read/norms.parquet"))[8:14]:
    print(f"{field.name}: {field.metadata[b'meaning'].decode()}")

# %%
# ``gradlens.load`` derives the shares, norms and means of all of them:

print(
    gradlens.load("runs/read")
    .norms[["step", "site", "recentering", "rescaling", "kept", "inv_sigma"]]
    .tail(4)
)
