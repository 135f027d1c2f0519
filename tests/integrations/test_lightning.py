"""What Lightning's callback records is what the loop written by hand does."""

import logging

import pytest
import torch
from torch import Tensor, nn

import gradlens
from tests.integrations.by_hand import BATCH, Net, assert_same, batches

pl = pytest.importorskip("lightning.pytorch", reason="needs the extra lightning")
from lightning.pytorch.plugins import MixedPrecision  # noqa: E402

from gradlens.integrations.lightning import GradlensCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
recording = pytest.mark.usefixtures("unjudged")


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("valid_loss", self.training_step(batch, index))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), "interval": "step"}]


class ByTwo(Module):
    """Two optimizers, stepped by hand, as of a GAN."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization, self.critic = False, Net()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.net, self.critic)]

    def training_step(self, batch, index):
        for optimizer, part in zip(self.optimizers(), (self.net, self.critic), strict=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(part(batch[0]), batch[1])
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def validation_step(self, batch, index):
        self.net(batch[0])


def fit(module, data, callback, epochs=1, path=None, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[callback], enable_model_summary=False, **(quiet | options)
    )
    loader = torch.utils.data.DataLoader(data, batch_size=None)
    trainer.fit(module, loader, torch.utils.data.DataLoader(batches(2), batch_size=None), ckpt_path=path)
    return trainer


def made(kind=Module, seed=0):
    torch.manual_seed(seed)
    return kind()


def by_hand(data, every=1, micro=1, clip=None, dtype=None, scaler=None):
    """The same training as ``fit``'s, written out."""
    module = made()
    (optimizer,), (schedule,) = module.configure_optimizers()
    with gradlens.attach(module, optimizer=optimizer, scaler=scaler, every=every) as lens:
        for at in range(0, len(data), micro):
            optimizer.zero_grad()
            losses = []
            for batch in data[at : at + micro]:
                with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None, cache_enabled=False):
                    losses.append(module.training_step(batch, 0))
                loss = losses[-1] / micro
                (loss if scaler is None else scaler.scale(loss)).backward()
            if scaler is not None:
                scaler.unscale_(optimizer)
            if clip is not None:
                nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimizer.step() if scaler is None else (scaler.step(optimizer), scaler.update())
            schedule["scheduler"].step()
            lens.step(loss=torch.stack(losses).mean())
    return lens.recording


@recording
@pytest.mark.parametrize("clip", [None, 0.1])
def test_steps_are_those_of_the_loop_and_validation_is_none(clip):
    callback = GradlensCallback(every=1)
    fit(made(), batches(6), callback, gradient_clip_val=clip, val_check_interval=2)
    assert_same(callback.lens.recording, by_hand(batches(6), clip=clip))
    steps = callback.lens.recording.steps
    assert steps["lr"].tolist() == pytest.approx([1e-2 * 0.9**step for step in range(6)])
    if clip:
        assert (steps["clip_coef"] * steps["grad_norm"]).tolist() == pytest.approx([clip] * 6, rel=1e-3)


@recording
def test_micro_batches_are_one_step():
    callback = GradlensCallback(every=1)
    fit(made(), batches(9), callback, accumulate_grad_batches=3, gradient_clip_val=0.1)
    assert_same(callback.lens.recording, by_hand(batches(9), micro=3, clip=0.1), rtol=1e-6)
    assert callback.lens.recording.steps["step"].tolist() == [0, 1, 2]


@recording
def test_only_every_nth_step_is_recorded():
    callback = GradlensCallback(every=3)
    fit(made(), batches(7), callback)
    assert callback.lens.recording.steps["step"].tolist() == [0, 3, 6]
    assert_same(callback.lens.recording, by_hand(batches(7), every=3))


@recording
def test_bfloat16():
    callback = GradlensCallback(every=1)
    fit(made(), batches(4), callback, precision="bf16-mixed")
    assert_same(callback.lens.recording, by_hand(batches(4), dtype=torch.bfloat16))


@recording
def test_float16_gradients_are_without_the_factor_of_the_plugins_scaler_and_a_skipped_step_is_one():
    def scaler():
        return torch.amp.GradScaler("cpu", init_scale=2.0**18, growth_interval=2)

    callback = GradlensCallback(every=1)
    precision = MixedPrecision("16-mixed", "cpu", scaler())
    fit(made(), batches(8), callback, plugins=[precision], gradient_clip_val=0.1)
    got = callback.lens.recording
    assert got.steps["grad_norm"].isna().any(), "no step overflowed"
    assert got.steps["grad_norm"].between(0.1, 10).any()
    assert_same(got, by_hand(batches(8), clip=0.1, dtype=torch.float16, scaler=scaler()))


@recording
def test_with_several_optimizers_a_step_is_a_batch():
    callback = GradlensCallback(every=1)
    fit(made(ByTwo), batches(4), callback)
    module = made(ByTwo)
    optimizers = module.configure_optimizers()
    with gradlens.attach(module) as lens:
        for x, y in batches(4):
            for optimizer, part in zip(optimizers, (module.net, module.critic), strict=True):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(part(x), y)
                loss.backward()
                optimizer.step()
            lens.step(loss=loss, lr=0.1)
    assert_same(callback.lens.recording, lens.recording)


@recording
@pytest.mark.parametrize("kind", [Module, ByTwo])
def test_a_training_that_goes_on_from_a_checkpoint_is_numbered_on(kind, tmp_path):
    whole = GradlensCallback(every=1)
    fit(made(kind), batches(4), whole, epochs=2)
    first = GradlensCallback(tmp_path / "run", every=1)
    trainer = fit(made(kind), batches(4), first, epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second = GradlensCallback(tmp_path / "more", every=1)
    fit(made(kind, seed=1), batches(4), second, epochs=2, path=tmp_path / "last.ckpt")
    expected, got = whole.lens.recording.norms, second.lens.recording.norms
    assert got["step"].unique().tolist() == [4, 5, 6, 7]
    assert got["rescaling"].tolist() == pytest.approx(expected[expected["step"] > 3]["rescaling"].tolist(), rel=1e-6)


@recording
def test_what_is_interrupted_goes_on_in_the_same_folder(tmp_path):
    class Stops(Module):
        def training_step(self, batch, index):
            if self.trainer.global_step == 5:
                raise RuntimeError("killed")
            return super().training_step(batch, index)

    saved = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=3, filename="three", save_top_k=-1)
    callback = GradlensCallback(tmp_path / "run", every=1)
    module = made(Stops)
    with pytest.raises(RuntimeError, match="killed"):
        pl.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=[callback, saved], logger=False, enable_progress_bar=False
        ).fit(module, torch.utils.data.DataLoader(batches(8), batch_size=None))
    assert gradlens.load(tmp_path / "run").meta["status"] == "interrupted"
    assert not module.net.norms[0]._forward_pre_hooks
    fit(made(), batches(8), GradlensCallback(tmp_path / "run", every=1), path=tmp_path / "three.ckpt")
    recording = gradlens.load(tmp_path / "run")
    assert recording.steps["step"].tolist() == list(range(8))
    assert recording.meta["status"] == "complete"


def test_the_verdict_is_the_last_word_of_the_trainers_log(caplog, tmp_path):
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        fit(made(), batches(6), GradlensCallback(tmp_path / "run", every=1))
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("gradlens: ")]
    assert len(said) == 1
    assert said[0].endswith(f"More: gradlens report {tmp_path / 'run'}")


class Halves(torch.utils.data.IterableDataset):
    """Of each batch the half that is this process's."""

    def __iter__(self):
        half = BATCH // 2
        mine = slice(torch.distributed.get_rank() * half, (torch.distributed.get_rank() + 1) * half)
        return ((x[mine], y[mine]) for x, y in batches(4))


@recording
def test_two_processes_record_what_one_with_all_the_data_would(tmp_path):
    fit(made(), Halves(), GradlensCallback(tmp_path / "run", every=1), strategy="ddp_fork", devices=2)
    recording = gradlens.load(tmp_path / "run")
    assert recording.meta["processes"] == {"world": 2, "data": 2, "recorded": 2}
    expected, got = by_hand(batches(4)), recording.over_processes()
    assert got.steps["grad_norm"].tolist() == pytest.approx(expected.steps["grad_norm"].tolist(), rel=1e-5)
    assert got.steps["loss"].tolist() == pytest.approx(expected.steps["loss"].tolist(), rel=1e-5)
    assert set(got.norms["site"]) == {f"module.{site}" for site in expected.norms["site"]}
    for column in ("rescaling", "recentering", "kept", "grad_output_norm", "grad_input_norm"):
        assert got.norms[column].tolist() == pytest.approx(expected.norms[column].tolist(), rel=1e-4)
