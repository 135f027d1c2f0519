#!/usr/bin/env bash
# torch 2.13.0, CPU: LayerNorm of a bfloat16 input with a bfloat16 gain keeps 1/sigma in bfloat16 for its backward pass, and
# computes the gradient with it; with a float32 gain it keeps float32.
#
# Whoever reconstructs what the norm removed from the gradient with the exact 1/sigma is off by up to 0.4 %, enough to make
# a small share negative. Seen, dtype of the saved 1/sigma and its largest relative error:
#   bfloat16 input, bfloat16 gain   torch.bfloat16   1e-3 to 4e-3
#   bfloat16 input, float32 gain    torch.float32    below 1e-5
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet torch==2.13.0 numpy
"$work/env/bin/python" - <<'PY'
import torch
import torch.nn.functional as F

assert torch.__version__.startswith("2.13.0"), torch.__version__
torch.manual_seed(0)
x = torch.randn(64, 32).bfloat16().requires_grad_()
wide = x.detach().double()
exact = (wide.var(-1, correction=0) + 1e-5).rsqrt()
seen = {}
for dtype in (torch.bfloat16, torch.float32):
    gain = torch.ones(32, dtype=dtype, requires_grad=True)
    y = F.layer_norm(x, (32,), gain, torch.zeros(32, dtype=dtype), 1e-5)
    saved = y.grad_fn._saved_result2
    error = float((saved.flatten().double() / exact - 1).abs().max())
    seen[dtype] = saved.dtype, error
    print("bfloat16 input,", dtype, "gain:", saved.dtype, f"{error:.0e}")
assert seen[torch.bfloat16][0] == torch.bfloat16 and seen[torch.bfloat16][1] > 5e-4
assert seen[torch.float32][0] == torch.float32 and seen[torch.float32][1] < 1e-4
PY
