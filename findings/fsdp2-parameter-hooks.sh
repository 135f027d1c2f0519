#!/usr/bin/env bash
# torch 2.13.0: after fully_shard (FSDP 2) hooks that were registered on parameters before it never fire, and tensor hooks
# on the sharded parameters never fire either. Only a post-accumulate-grad hook registered after fully_shard does.
#
# fully_shard puts other parameters in the place of those that carry the hooks, without a warning, and it sets their
# gradient itself instead of letting autograd accumulate it. Seen, calls in one backward pass over 4 parameters:
#   tensor hook, before sharding       0
#   post-accumulate, before sharding   0
#   tensor hook, after sharding        0
#   post-accumulate, after sharding    4
# What to do: read gradients at the end of the backward pass, or register post-accumulate hooks after sharding.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet torch==2.13.0 numpy
"$work/env/bin/python" - "$work/store" <<'PY'
import sys
from collections import Counter

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

assert torch.__version__.startswith("2.13.0"), torch.__version__
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
fired = Counter()


def register(when):
    for parameter in model.parameters():
        parameter.register_hook(lambda grad: fired.update([f"tensor hook, {when} sharding"]))
        parameter.register_post_accumulate_grad_hook(lambda p: fired.update([f"post-accumulate, {when} sharding"]))


model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
register("before")
fully_shard(model)
register("after")
model(torch.randn(2, 4)).sum().backward()
for when in ("before", "after"):
    for hook in ("tensor hook", "post-accumulate"):
        print(f"{hook}, {when} sharding".ljust(34), fired[f"{hook}, {when} sharding"])
assert fired == {"post-accumulate, after sharding": 4}, fired
assert all(parameter.grad is not None for parameter in model.parameters())
dist.destroy_process_group()
PY
