#!/usr/bin/env bash
# torch 2.13.0: a tensor hook on a view never fires once the view is changed in place, without a warning; one on a tensor
# that is no view fires with the gradient from before the change. nn.InstanceNorm2d returns a view, nn.BatchNorm2d does not.
#
# So `y = norm(x); y.register_hook(f); F.relu_(y)` works for BatchNorm and is silent for InstanceNorm. A hook on the
# view's base (y._base) fires, with the base's gradient. Seen, calls in one backward pass:
#   BatchNorm2d     is a view: False   hook on the output: 1
#   InstanceNorm2d  is a view: True    hook on the output: 0   hook on its base: 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet torch==2.13.0 numpy
"$work/env/bin/python" - <<'PY'
import torch
from torch import nn

assert torch.__version__.startswith("2.13.0"), torch.__version__


def calls(norm):
    fired = {"output": 0, "base": 0}
    y = norm(torch.randn(2, 3, 4, 4, requires_grad=True))
    y.register_hook(lambda grad: fired.update(output=fired["output"] + 1))
    if y._is_view():
        y._base.register_hook(lambda grad: fired.update(base=fired["base"] + 1))
    view = y._is_view()
    torch.relu_(y).sum().backward()
    print(f"{type(norm).__name__:15} is a view: {view}", fired)
    return view, fired


assert calls(nn.BatchNorm2d(3)) == (False, {"output": 1, "base": 0})
assert calls(nn.InstanceNorm2d(3, affine=True)) == (True, {"output": 0, "base": 1})
PY
