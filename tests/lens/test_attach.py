"""What attaching promises: the model is left as it was, counts are right, nothing is missed in silence."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import gradlens
from gradlens import GradlensError
from gradlens.lab.models.transformer import Transformer
from gradlens.lab.norms import NORMS
from tests.lens.networks import stack
from tests.lens.training_loop import at_once, train

SIZE = {"vocab": 32, "width": 16, "blocks": 2, "heads": 2, "max_length": 12}


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder-decoder"])
@pytest.mark.parametrize("variant", [f"{place}/{norm}" for place in ("pre-ln", "post-ln") for norm in NORMS])
def test_losses_and_weights_are_bit_equal_with_and_without_the_lens(variant, kind, tmp_path):
    def run(attached: bool):
        torch.manual_seed(3)
        model = Transformer(variant, kind=kind, dropout=0.1, **SIZE)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        lens = gradlens.attach(model, out=tmp_path / "run") if attached else None
        losses = []
        for step in range(4):
            tokens = torch.randint(0, 32, (3, 12), generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            logits = model(tokens, tokens) if kind == "encoder-decoder" else model(tokens)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if lens:
                lens.step(loss=loss)
        if lens:
            lens.detach()
        return losses, [p.detach().clone() for p in model.parameters()]

    (losses, weights), (losses_seen, weights_seen) = run(False), run(True)
    assert losses == losses_seen
    assert all(torch.equal(a, b) for a, b in zip(weights, weights_seen, strict=True))


def test_after_detach_no_hook_is_left_and_the_model_pickles():
    model = stack()
    keys = list(model.state_dict())
    with gradlens.attach(model) as lens:
        train(model, lens=lens)
        assert hooks(model) > 0
        assert list(model.state_dict()) == keys
    assert hooks(model) == 0
    assert not any(p._backward_hooks for p in model.parameters())
    assert hooks(pickle.loads(pickle.dumps(model))) == 0
    lens.detach()  # once more does nothing


def test_after_an_exception_inside_the_with_no_hook_is_left_and_earlier_steps_are_kept(tmp_path):
    model = stack()

    def fail():
        with gradlens.attach(model, out=tmp_path / "run") as lens:
            train(model, steps=3, lens=lens)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert hooks(model) == 0
    pickle.dumps(model)
    recording = gradlens.load(tmp_path / "run")
    assert recording.steps["step"].tolist() == [0, 1, 2]
    assert recording.meta["status"] == "interrupted"


def test_a_model_can_be_saved_and_copied_while_attached():
    model = stack()
    with gradlens.attach(model) as lens:
        train(model, steps=2, lens=lens)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        clone = copy.deepcopy(model)
        train(clone, steps=1)
        train(model, steps=1, lens=lens)
    assert len(lens.recording.steps) == 3
    assert lens.recording.norms.groupby("step").size().tolist() == [4, 4, 4]
    buffer.seek(0)
    train(torch.load(buffer, weights_only=False), steps=1)


def test_a_module_called_twice_gets_a_row_a_call():
    torch.manual_seed(0)
    norm, first, second = nn.LayerNorm(8), torch.randn(3, 8), 5 * torch.randn(4, 8)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm

        def forward(self, a, b):
            return self.norm(a).sum() + self.norm(b).square().sum()

    model = Twice()
    with gradlens.attach(model) as lens:
        model(first.requires_grad_(), second.requires_grad_()).backward()
        lens.step()
    norms = lens.recording.norms
    assert norms["call"].tolist() == [0, 1]
    assert norms["vectors"].tolist() == [3, 4]
    assert norms["inv_sigma"][1] == pytest.approx(norms["inv_sigma"][0] / 5, rel=0.5)


def test_an_absent_gradient_is_missing_never_zero():
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.LayerNorm(8))
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    with gradlens.attach(model) as lens:
        model(torch.randn(3, 8)).sum().backward()
        lens.step()
    recording, audit = lens.recording, lens.audit()
    first = recording.norms.set_index("site").loc["0"]
    assert first[["kept", "rescaling", "grad_input_norm", "var_actual"]].isna().all()
    assert first[["recentering", "grad_output_norm"]].notna().all()
    frozen = recording.params.set_index("name").loc["1.weight"]
    assert frozen[["grad_norm", "grad_absmax"]].isna().all()
    assert audit.without_grad_input == ("0",)


def test_non_finite_vectors_are_counted_left_out_and_reported_with_their_place():
    torch.manual_seed(0)
    model = stack()
    x = torch.randn(4, 5, 16)
    with gradlens.attach(model) as lens:
        model(x).square().sum().backward()
        lens.step()
        x[1, 2, 3] = float("nan")
        model(x).square().sum().backward()
        lens.step()
        audit = lens.audit()
    norms = lens.recording.norms
    clean, broken = norms[norms["step"] == 0], norms[norms["step"] == 1]
    assert (clean["nonfinite"] == 0).all()
    assert (broken["nonfinite"] == 1).all()
    assert broken.drop(columns=["recentering", "rescaling", "kept"]).notna().all(axis=None)
    assert audit.nonfinite == "the input of 1.0, in the forward pass, step 1"
    params = lens.recording.params
    assert (params[params["step"] == 1]["nonfinite"] > 0).any()


def test_half_precision_is_measured_in_float32():
    torch.manual_seed(0)
    norm = nn.LayerNorm(64).half()
    x = (300 * torch.randn(8, 64)).half().requires_grad_()  # its square overflows float16
    with gradlens.attach(norm) as lens:
        norm(x).float().square().sum().backward()
        lens.step()
    activation = lens.recording.activations.iloc[0]
    assert activation["rms"] == pytest.approx(float(x.detach().float().square().mean().sqrt()), rel=1e-5)
    assert lens.recording.norms.iloc[0]["nonfinite"] == 0


def test_watch_takes_regular_expressions_on_module_paths():
    model = stack()
    with gradlens.attach(model, watch=(r"1\.[02]\.linear", r"^2$")) as lens:
        train(model, steps=1, lens=lens)
    sites = lens.recording.sites
    assert sites["site"].tolist() == ["1.0.linear", "1.2.linear", "2"]
    assert sites["kind"].tolist() == ["module", "module", "norm"]


def test_blocks_and_their_stacks_are_found():
    sites = at_once(stack(blocks=3)).sites.set_index("site")
    assert sites.loc["1.2", "kind"] == "block"
    assert sites.loc["1.2.norm", "block"] == 2
    assert sites.loc["2", "kind"] == "norm"
    assert sites["block"].isna()["2"]


@pytest.mark.parametrize("norm_first", [True, False])
def test_torch_encoder_layers_are_placed_by_norm_first(norm_first):
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, norm_first=norm_first, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16), enable_nested_tensor=False)
    sites = at_once(encoder).sites.set_index("site")
    assert sites.loc["layers.0.norm1", "placement"] == ("pre_branch" if norm_first else "post_add")
    assert sites.loc["norm", "placement"] == "final"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradlens.attach("model"), "needs a torch.nn.Module; got str"),
        (lambda: gradlens.attach(stack(), every=0), "every must be 1 or more, or 'auto'; got 0"),
        (lambda: gradlens.attach(stack(), watch=("nroms[",)), "regular expressions"),
        (lambda: gradlens.attach(stack(), watch=("atention",)), "no module's path matches 'atention'"),
        (lambda: gradlens.register_norm("x", axes=-1), "class derived from nn.Module"),
        (lambda: gradlens.attach(stack()).step(seconds=1.0), "fills seconds itself"),
    ],
)
def test_a_wrong_call_says_what_must_hold_and_what_was_got(call, message):
    with pytest.raises(GradlensError, match=message):
        call()


def test_a_registered_class_is_recorded_over_its_axes():
    class Scale(nn.Module):
        """Divides by the root mean square over the first axis."""

        eps = 1e-6

        def forward(self, x):
            return x * torch.rsqrt(x.square().mean(0, keepdim=True) + self.eps)

    gradlens.register_norm(Scale, axes=0, centered=False)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), Scale())
    with gradlens.attach(model) as lens:
        model(torch.randn(32, 16)).pow(3).sum().backward()
        lens.step()
    row = lens.recording.norms.iloc[0]
    assert (row["vectors"], row["width"], row["recentering"]) == (16, 32, 0)
    assert row["kept"] + row["rescaling"] == pytest.approx(1)


class HostCopies(TorchDispatchMode):
    """Counts the operations that would wait for a device and bring a number to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "_local_scalar_dense" in str(function) or "nonzero" in str(function):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


def test_nothing_inside_the_hooks_copies_to_the_host():
    model = stack()
    with gradlens.attach(model, watch=("norms", "blocks")) as lens, HostCopies() as copies:
        model(torch.randn(4, 5, 16)).square().mean().backward()
        assert copies.found == []
        torch.ones(1).item()
        assert copies.found  # the counter counts
    lens.detach()


def test_a_recording_says_which_parameters_were_frozen():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    with gradlens.attach(model) as lens:
        model(torch.randn(3, 4)).sum().backward()
        lens.step()
    assert lens.recording.meta["frozen"] == ["0.weight", "0.bias"]
