#!/usr/bin/env bash
# transformers 5.23.0: the Trainer's log says a plausible loss in steps whose loss is NaN. By default
# (logging_nan_inf_filter=True) a loss that is NaN or infinite is replaced in the running sum by the mean of those since
# the last entry of the log, which with logging_steps=1 is 0. Callbacks get no other loss than that one.
#
# Seen, a model whose loss is NaN from the third step on:
#   logging_steps=1                                 logged 1.0 1.0 0.0 0.0
#   logging_steps=4                                 logged 0.83
#   logging_nan_inf_filter=False, logging_steps=1   logged 1.0 1.0 nan nan
# What to do: logging_nan_inf_filter=False, or read the loss where the model returns it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet torch==2.13.0 numpy transformers==5.23.0 accelerate==1.15.0
cd "$work"
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$work/env/bin/python" - <<'PY'
import math

import torch
import transformers

assert transformers.__version__ == "5.23.0"


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.calls = torch.nn.Parameter(torch.zeros(())), 0

    def forward(self, x):
        self.calls += 1
        return {"loss": 1.0 + 0.0 * self.weight if self.calls < 3 else self.weight * math.nan}


def logged(**options):
    arguments = transformers.TrainingArguments(
        "out", max_steps=4, per_device_train_batch_size=1, use_cpu=True, report_to=[], disable_tqdm=True,
        save_strategy="no", max_grad_norm=0.0, **options,
    )
    trainer = transformers.Trainer(Model(), arguments, train_dataset=[{"x": torch.ones(1)}] * 4)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(options, losses)
    return losses


assert logged(logging_steps=1) == [1.0, 1.0, 0.0, 0.0]
assert all(math.isfinite(loss) for loss in logged(logging_steps=4))
assert [math.isnan(loss) for loss in logged(logging_steps=1, logging_nan_inf_filter=False)] == [False, False, True, True]
PY
