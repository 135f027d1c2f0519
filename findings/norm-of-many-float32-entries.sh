#!/usr/bin/env bash
# torch 2.13.0, CPU: the L2 norm of a float32 tensor of millions of entries is too small, by a thousandth at 20 million.
#
# torch.linalg.vector_norm, torch._foreach_norm and with them torch.nn.utils.clip_grad_norm_ (get_total_norm) add the
# squares of one tensor in few float32 accumulators; x.square().sum().sqrt() adds pairwise and is right to 1e-7. The
# error grows with the number of entries and has one sign, so an embedding's gradient norm drifts down as the
# vocabulary grows. Seen, relative error at 1, 4 and 20 million normal entries:
#   vector_norm      -9.9e-06  -7.7e-05  -1.0e-03
#   get_total_norm   -9.9e-06  -7.7e-05  -1.0e-03
#   square().sum()   +5.9e-08  +2.3e-08  -5.9e-08
# What to do: sum in parts of some 65,536 entries, and the parts in float64.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet torch==2.13.0 numpy
"$work/env/bin/python" - <<'PY'
import torch

assert torch.__version__.startswith("2.13.0"), torch.__version__
torch.set_num_threads(1)
ways = {
    "vector_norm": torch.linalg.vector_norm,
    "get_total_norm": lambda x: torch.nn.utils.get_total_norm([x]),
    "square().sum()": lambda x: x.square().sum().sqrt(),
}
errors = {name: [] for name in ways}
for entries in (2**20, 4_000_000, 20_000_000):
    x = torch.randn(entries, generator=torch.Generator().manual_seed(0))
    exact = float(x.double().square().sum().sqrt())
    for name, way in ways.items():
        errors[name].append(float(way(x)) / exact - 1)
for name, found in errors.items():
    print(f"{name:15}", *(f"{error:+.1e}" for error in found))
for name in ("vector_norm", "get_total_norm"):
    assert errors[name][2] < -3e-4, f"{name} is right now"
assert max(map(abs, errors["square().sum()"])) < 1e-6
PY
