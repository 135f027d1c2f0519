#!/usr/bin/env bash
# torch 2.13.0: of all norms BatchNorm alone refuses eps = 0, and only where it takes the batch's own statistics.
# LayerNorm, RMSNorm, GroupNorm and InstanceNorm (which is batch_norm inside) take it; so does BatchNorm with running
# statistics, and torch.batch_norm. What compares norms without eps, as a paper's equations have them, fails for one.
#
# Seen:
#   LayerNorm, RMSNorm, GroupNorm, InstanceNorm1d (eps=0)    finite
#   BatchNorm1d(eps=0), training    ValueError: batch_norm eps must be positive during training, but got 0
#   BatchNorm1d(eps=0), eval                                 finite
#   torch.batch_norm(..., training=True, eps=0)              finite, and that of eps=1e-30
# What to do: eps=1e-30, which no variance in float32 feels.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet torch==2.13.0 numpy
"$work/env/bin/python" - <<'PY'
import torch
from torch import nn

assert torch.__version__.startswith("2.13.0")
x = torch.randn(8, 6, 5)
others = (nn.LayerNorm(5, eps=0), nn.RMSNorm(5, eps=0), nn.GroupNorm(2, 6, eps=0), nn.InstanceNorm1d(6, eps=0))
for norm in others:
    assert torch.isfinite(norm(x)).all()
    print(type(norm).__name__, "finite")
batch = nn.BatchNorm1d(6, eps=0)
try:
    batch(x)
except ValueError as error:
    print("BatchNorm1d, training:", error)
else:
    raise AssertionError("it takes eps=0")
assert torch.isfinite(batch.eval()(x)).all()
print("BatchNorm1d, eval: finite")
own = torch.batch_norm(x, None, None, None, None, True, 0.1, 0.0, False)
assert torch.isfinite(own).all()
assert torch.allclose(own, nn.BatchNorm1d(6, eps=1e-30)(x), atol=1e-6)
print("torch.batch_norm, training: finite, and that of eps=1e-30")
PY
