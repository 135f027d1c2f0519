#!/usr/bin/env bash
# transformers 5.23.0: `post_attention_layernorm` stands in three places. In Llama it is the norm *before* the MLP, and reads
# the stream; in OLMo 2 it is the norm *after* attention, and reads the branch; GLM 4 has that name before the MLP and
# `post_self_attn_layernorm` after attention.
#
# A tool that tells placements by this name, or tunes or freezes "the norms after attention" by it, takes one for the other.
# Seen, what the module of that name in the first block reads:
#   llama   stream + attention's output
#   olmo2   attention's output
#   glm4    stream + a norm (post_self_attn_layernorm) of attention's output
# What to do: look at what the module reads, not at what it is called.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet torch==2.13.0 numpy transformers==5.23.0
HF_HUB_OFFLINE=1 "$work/env/bin/python" - <<'PY'
import torch
import transformers

assert transformers.__version__ == "5.23.0"
SIZES = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "head_dim": 8, "intermediate_size": 32, "pad_token_id": 0,
}


def read_by_the_norm(model_type):
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.CONFIG_MAPPING[model_type](**SIZES)).eval()
    block, seen = model.layers[0], {}
    block.register_forward_pre_hook(lambda m, args: seen.update(stream=args[0]))
    block.self_attn.register_forward_hook(lambda m, args, out: seen.update(attention=out[0]))
    block.post_attention_layernorm.register_forward_pre_hook(lambda m, args: seen.update(reads=args[0]))
    if hasattr(block, "post_self_attn_layernorm"):
        block.post_self_attn_layernorm.register_forward_hook(lambda m, args, out: seen.update(normed=out))
    with torch.no_grad():
        model(torch.arange(1, 7).view(1, 6))
    sums = {
        "attention's output": seen["attention"],
        "stream + attention's output": seen["stream"] + seen["attention"],
        "stream + a norm of attention's output": seen["stream"] + seen.get("normed", torch.nan),
    }
    found = [name for name, tensor in sums.items() if torch.allclose(tensor, seen["reads"], atol=1e-6)]
    print(f"{model_type:6} {found}")
    return found


assert read_by_the_norm("llama") == ["stream + attention's output"]
assert read_by_the_norm("olmo2") == ["attention's output"]
assert read_by_the_norm("glm4") == ["stream + a norm of attention's output"]
PY
