#!/usr/bin/env bash
# accelerate 1.15.0: what Accelerator.prepare returns for an optimizer is a torch.optim.Optimizer by isinstance, and was
# never initialized as one: it has no hooks. register_step_post_hook raises AttributeError; state_dict hooks too. The
# hooks belong on the optimizer inside, which is what steps, and only where gradients are synchronized.
#
# Seen:
#   isinstance(prepared, torch.optim.Optimizer)        True
#   prepared.register_step_post_hook(hook)             AttributeError: ... '_optimizer_step_post_hooks'
#   prepared.optimizer.register_step_post_hook(hook)   called once for two micro-batches of one step
# What to do: take prepared.optimizer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet torch==2.13.0 numpy accelerate==1.15.0
"$work/env/bin/python" - <<'PY'
import accelerate
import torch

assert accelerate.__version__ == "1.15.0"
accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
model = torch.nn.Linear(2, 2)
model, prepared = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
print("isinstance(prepared, torch.optim.Optimizer):", isinstance(prepared, torch.optim.Optimizer))
assert isinstance(prepared, torch.optim.Optimizer)
called = []
try:
    prepared.register_step_post_hook(lambda *args: called.append(args))
except AttributeError as error:
    print("prepared.register_step_post_hook:", error)
else:
    raise AssertionError("it has hooks")
prepared.optimizer.register_step_post_hook(lambda *args: called.append(args))
for _ in range(2):
    with accelerator.accumulate(model):
        accelerator.backward(model(torch.ones(1, 2)).sum())
        prepared.step()
        prepared.zero_grad()
print("prepared.optimizer.register_step_post_hook: called", len(called), "time for two micro-batches")
assert len(called) == 1
PY
