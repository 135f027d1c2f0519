"""What the Trainer's callback records is what the loop written by hand does."""

import pytest
import torch
from torch import nn

import gradlens
from tests.integrations.by_hand import assert_same

transformers = pytest.importorskip("transformers", reason="needs the extra hf")
pytest.importorskip("accelerate", reason="needs the extra hf")

from accelerate import Accelerator  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402

from gradlens.integrations.huggingface import GradlensCallback, around  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("unjudged")]
VOCABULARY = 32


def llama(seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=16, num_key_value_heads=2, use_cache=False, **sizes
    )
    return transformers.LlamaForCausalLM(config)


def texts(count):
    """Texts of which a different number of tokens is to be predicted."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(count):
        tokens = torch.randint(0, VOCABULARY, (8,), generator=generator)
        labels = tokens.clone()
        labels[: index % 5] = -100
        found.append({"input_ids": tokens, "labels": labels})
    return found


def arguments(folder, **options):
    fixed = {"per_device_train_batch_size": 2, "num_train_epochs": 1, "learning_rate": 1e-2, "optim": "adamw_torch"}
    quiet = {"use_cpu": True, "report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    return transformers.TrainingArguments(str(folder), **(fixed | quiet | {"max_grad_norm": 0.1} | options))


class InOrder(transformers.Trainer):
    """Takes the texts as they come."""

    def _get_train_sampler(self, dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def train(model, data, folder, callback, path=None, kind=InOrder, **options):
    trainer = kind(model, arguments(folder, **options), train_dataset=data, eval_dataset=data[:4], callbacks=[callback])
    trainer.train(resume_from_checkpoint=path)
    return trainer


def by_hand(model, data, micro=1, dtype="no"):
    """The same training as ``train``'s, written out with accelerate: each text's loss counts by its tokens."""
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision=dtype)
    groups = [[p for p in model.parameters() if p.requires_grad and (p.dim() > 1) is big] for big in (True, False)]
    optimizer = torch.optim.AdamW([{"params": group, "weight_decay": 0.0} for group in groups], lr=1e-2)
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    batches = [
        {name: torch.stack([text[name] for text in data[at : at + 2]]) for name in data[0]}
        for at in range(0, len(data), 2)
    ]
    steps = [batches[at : at + micro] for at in range(0, len(batches), micro)]
    with gradlens.attach(model, optimizer=optimizer) as lens:
        for step, parts in enumerate(steps):
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 * (1 - step / len(steps))
            tokens = sum(int((part["labels"][:, 1:] != -100).sum()) for part in parts)
            losses = []
            for part in parts:
                losses.append(model(**part, num_items_in_batch=torch.tensor(tokens)).loss)
                accelerator.backward(losses[-1])
            accelerator.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            lens.step(loss=torch.stack(losses).sum())
    AcceleratorState._reset_state(reset_partial_state=True)
    return lens.recording


def test_steps_are_those_of_the_loop_and_evaluation_is_none(tmp_path):
    callback = GradlensCallback(every=1)
    trainer = train(llama(), texts(12), tmp_path, callback, eval_strategy="steps", eval_steps=2)
    recording = callback.lens.recording
    assert_same(recording, by_hand(llama(), texts(12)), rtol=1e-6)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert recording.steps["loss"].tolist() == pytest.approx([entry["loss"] for entry in logged], rel=1e-3)
    assert recording.steps["grad_norm"].tolist() == pytest.approx([entry["grad_norm"] for entry in logged], rel=1e-5)
    assert (recording.steps["grad_norm"] * recording.steps["clip_coef"]).tolist() == pytest.approx([0.1] * 6, rel=1e-3)


def test_micro_batches_count_by_their_tokens(tmp_path):
    callback = GradlensCallback(every=1)
    train(llama(), texts(12), tmp_path, callback, gradient_accumulation_steps=3)
    recording = callback.lens.recording
    assert recording.steps["step"].tolist() == [0, 1]
    assert_same(recording, by_hand(llama(), texts(12), micro=3), rtol=1e-6)


def test_bfloat16_and_gradient_checkpointing(tmp_path):
    callback = GradlensCallback(every=1)
    train(llama(), texts(8), tmp_path, callback, bf16=True, gradient_checkpointing=True)
    model = llama()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same(callback.lens.recording, by_hand(model, texts(8), dtype="bf16"), rtol=1e-6)


def with_lora():
    peft = pytest.importorskip("peft", reason="needs peft, of the extra test")
    torch.manual_seed(1)
    return peft.get_peft_model(llama(), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))


def test_lora(tmp_path):
    callback = GradlensCallback(every=1)
    train(with_lora(), texts(8), tmp_path, callback)
    recording = callback.lens.recording
    assert_same(recording, by_hand(with_lora(), texts(8)), rtol=1e-6)
    assert recording.params.loc[recording.params["grad_norm"].notna(), "name"].str.contains("lora_").all()


def test_a_training_that_goes_on_from_a_checkpoint_is_numbered_on_in_the_same_folder(tmp_path):
    whole = GradlensCallback(every=1)
    train(llama(), texts(12), tmp_path / "whole", whole)

    class Stops(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise RuntimeError("killed")

    first, options = GradlensCallback(tmp_path / "run", every=1), {"save_strategy": "steps", "save_steps": 3}
    trainer = InOrder(
        llama(), arguments(tmp_path / "out", **options), train_dataset=texts(12), callbacks=[first, Stops()]
    )
    with pytest.raises(RuntimeError, match="killed"):
        trainer.train()
    first.lens.hand_over()  # as by the end of the program
    last = GradlensCallback(tmp_path / "run", every=1)
    train(llama(seed=1), texts(12), tmp_path / "out", last, path=str(tmp_path / "out" / "checkpoint-3"), **options)
    got, expected = last.lens.recording, whole.lens.recording
    assert got.steps["step"].tolist() == list(range(6))
    assert got.steps["loss"].tolist() == pytest.approx(expected.steps["loss"].tolist(), rel=1e-5)
    assert got.norms["rescaling"].tolist() == pytest.approx(expected.norms["rescaling"].tolist(), rel=1e-4)


def test_where_the_model_says_no_loss_the_logged_one_is_taken(tmp_path):
    def loss(outputs, labels, num_items_in_batch=None):
        return nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten(), ignore_index=-100)

    class Other(InOrder):
        def __init__(self, *args, **options):
            super().__init__(*args, compute_loss_func=loss, **options)

    callback = GradlensCallback(every=1)
    trainer = train(llama(), texts(12), tmp_path, callback, kind=Other, logging_steps=2)
    steps = callback.lens.recording.steps
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert steps["step"].tolist() == list(range(6))
    assert steps["loss"][[1, 3, 5]].tolist() == pytest.approx(logged)
    assert steps["loss"][[0, 2, 4]].isna().all()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_the_wrapper_of_a_model_is_found_which_callbacks_are_not_shown(tmp_path):
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    wrapped = nn.parallel.DistributedDataParallel(model)
    assert around(model) is wrapped
    assert around(other) is other
    torch.distributed.destroy_process_group()


def test_trls_trainer(tmp_path):
    trl = pytest.importorskip("trl", reason="needs trl, of the extra test")
    import datasets
    import tokenizers

    class Sft(trl.SFTTrainer):
        _get_train_sampler = InOrder._get_train_sampler

    words = {"<pad>": 0, "<eos>": 1, **{f"w{index}": index for index in range(2, VOCABULARY)}}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<eos>")),
        pad_token="<pad>", eos_token="<eos>",
    )  # fmt: skip
    data = datasets.Dataset.from_list([{"input_ids": text["input_ids"].tolist()} for text in texts(8)])
    callback = GradlensCallback(every=1)
    given = arguments(tmp_path, gradient_accumulation_steps=2).to_dict()
    names = ("per_device_train_batch_size", "learning_rate", "use_cpu", "report_to", "save_strategy", "disable_tqdm",
             "logging_steps", "max_grad_norm", "num_train_epochs", "gradient_accumulation_steps")  # fmt: skip
    config = trl.SFTConfig(str(tmp_path), bf16=False, **{name: given[name] for name in names})
    trainer = Sft(llama(), config, train_dataset=data, processing_class=tokenizer, callbacks=[callback])
    trainer.train()
    steps, logged = callback.lens.recording.steps, [entry for entry in trainer.state.log_history if "loss" in entry]
    assert steps["step"].tolist() == [0, 1]
    for column in ("loss", "grad_norm"):
        assert steps[column].tolist() == pytest.approx([entry[column] for entry in logged], rel=1e-5)
