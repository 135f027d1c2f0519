#!/usr/bin/env bash
# torch 2.13.0: with find_unused_parameters=True (or static_graph=True) every output of DistributedDataParallel goes
# through an autograd.Function that does not materialize gradients. A tensor hook on an output that the loss was not
# computed from *as it came out* is called with None. Without the flag the same hook gets the gradient: the output is the
# module's own tensor, from which the loss inside of the module was computed.
#
# Seen, a module that returns its loss and the logits under it, hook on logits, loss.backward():
#   find_unused_parameters=False   called with the gradient
#   find_unused_parameters=True    called with None
# Hugging Face's Trainer sets the flag unless gradient checkpointing is on, and its models return both.
# What to do: let hooks take None; to see the gradient, put the hook on a module inside.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet torch==2.13.0 numpy
"$work/env/bin/python" - "$work" <<'PY'
import sys

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

assert torch.__version__.startswith("2.13.0")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        logits = self.linear(x)
        return {"loss": logits.square().mean(), "logits": logits}


torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=0, world_size=1)
for flag in (False, True):
    model, seen = DistributedDataParallel(Model(), find_unused_parameters=flag), []
    output = model(torch.randn(3, 2))
    output["logits"].register_hook(seen.append)
    output["loss"].backward()
    (grad,) = seen
    print(f"find_unused_parameters={flag}: called with", "None" if grad is None else "the gradient")
    assert (grad is None) == flag
torch.distributed.destroy_process_group()
PY
