#!/usr/bin/env bash
# accelerate 1.15.0: with mixed precision a prepared model returns float32 copies of its outputs. Where the loss is made
# inside of the model, as in those of Hugging Face, the logits that it returns beside it are not the ones the loss was
# computed from: no gradient comes to them, without an error.
#
# Seen, a hook on the returned logits, and output.loss.backward():
#   mixed_precision="no"     called once
#   mixed_precision="bf16"   never called
# What to do: put the hook on the module that makes the logits, or compute the loss from what the model returned.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet torch==2.13.0 numpy accelerate==1.15.0
"$work/env/bin/python" - <<'PY'
import accelerate
import torch
from accelerate.state import AcceleratorState
from torch import nn

assert accelerate.__version__ == "1.15.0"


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        logits = self.linear(x)
        return {"loss": logits.float().square().mean(), "logits": logits}


for precision, calls in (("no", 1), ("bf16", 0)):
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision)
    output, called = accelerator.prepare(Model())(torch.ones(1, 2)), []
    output["logits"].register_hook(called.append)
    accelerator.backward(output["loss"])
    print(f"mixed_precision={precision!r}: called {len(called)} times, logits are {output['logits'].dtype}")
    assert len(called) == calls
PY
