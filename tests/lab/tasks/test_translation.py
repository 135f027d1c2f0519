import itertools
import math
import random
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gradlens.errors import GradlensError, ModelError
from gradlens.lab.tasks import TASKS
from gradlens.lab.tasks.bitext import Bitext
from gradlens.lab.tasks.pieces import BEGIN, END, PAD, Pieces
from gradlens.lab.tasks.translation import Translation

NUMBERS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs"}
SHAPE = {"batch_size": 16, "length": 20}


def made_up() -> Bitext:
    """Five numbers are translated word by word; BLEU needs four words in a row."""
    five = random.Random(0).sample(list(itertools.product(NUMBERS, repeat=5)), 300)
    pairs = [(" ".join(words), " ".join(NUMBERS[word] for word in words)) for words in five]
    return Bitext({"train": [p for i, p in enumerate(pairs) if i % 9], "valid": pairs[::9]})


@pytest.fixture(scope="module")
def task() -> Translation:
    return Translation(data=made_up(), vocab=300)


def tiny(task, variant="pre-ln", seed=0):
    torch.manual_seed(seed)
    return task.model(variant, width=32, blocks=1, heads=2, dropout=0.0)


def test_pieces_are_trained_the_same_every_time_and_come_back_as_text():
    texts = [text for pair in made_up().splits["train"] for text in pair]
    first, second = Pieces(texts, 300), Pieces(texts, 300)
    assert first.sha256 == second.sha256
    assert len(first) <= 300
    for text in ("eins zwei fünf", "Öffnen Sie “sie” — 数!", "  two  spaces"):
        (pieces,) = first.encode([text])
        assert first.decode([*pieces, END, PAD]) == text
        assert not {PAD, BEGIN, END} & set(pieces)


def test_pieces_know_nothing_of_held_out_text(task):
    other = made_up()
    changed = Bitext({**other.splits, "valid": [("quite other words", "ganz andere Wörter")] * 3})
    assert Translation(data=changed, vocab=300).describe()["vocab_sha256"] == task.describe()["vocab_sha256"]


def test_a_batch_is_a_source_with_an_end_and_a_target_with_both(task):
    source, target = task.batch(0, seed=0, **SHAPE)
    assert (target[:, 0] == BEGIN).all()
    for row in [*source.tolist(), *target.tolist()]:
        real = [token for token in row if token != PAD]
        assert real[-1] == END
        assert row == real + [PAD] * (len(row) - len(real))
    assert max(source.shape[1], target.shape[1]) * len(source) <= 16 * 20


def test_length_leaves_out_longer_pairs(task):
    lengths = task._lengths["train"]
    limit = int(sorted(lengths)[len(lengths) // 3])
    seen = [task.batch(k, seed=0, batch_size=4, length=limit) for k in range(60)]
    assert max(max(s.shape[1], t.shape[1]) for s, t in seen) == limit < lengths.max()
    with pytest.raises(GradlensError, match="no train pair of at most 2 tokens"):
        task.batch(0, seed=0, batch_size=4, length=2)


def test_the_loss_is_over_real_tokens_with_smoothed_labels(task):
    batch = task.batch(0, seed=0, **SHAPE)
    vocab = task.describe()["vocab"]
    logits = torch.randn(*batch[1].shape, vocab, generator=torch.Generator().manual_seed(0))
    log_p = logits.log_softmax(-1)
    terms = [
        0.9 * log_p[b, t, batch[1][b, t + 1]] + 0.1 * log_p[b, t].mean()
        for b in range(len(batch[1]))
        for t in range(batch[1].shape[1] - 1)
        if batch[1][b, t + 1] != PAD
    ]
    assert float(task.loss(logits, batch)) == pytest.approx(-float(torch.stack(terms).mean()), rel=1e-5)
    assert float(task.loss(SimpleNamespace(logits=logits), batch)) == float(task.loss(logits, batch))
    assert float(task.loss(torch.zeros_like(logits), batch)) == pytest.approx(task.uniform_loss, rel=1e-6)
    with pytest.raises(ModelError, match=r"one per token of the target; the model gave \(2, 3\)"):
        task.loss(torch.zeros(2, 3), batch)


def test_the_held_out_loss_is_unsmoothed_and_weighs_every_token_alike(task):
    model = tiny(task).eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for k in range(2):
            source, target = task.batch(k, seed=0, split="valid", batch_size=4, length=20)
            logits = model(source, target)[:, :-1].flatten(0, 1)
            total += float(F.cross_entropy(logits, target[:, 1:].flatten(), ignore_index=PAD, reduction="sum"))
            count += int((target[:, 1:] != PAD).sum())
    metrics = task.evaluate(model, batches=2, batch_size=4, length=20, device="cpu")
    assert metrics["valid_loss"] == pytest.approx(total / count, rel=1e-5)


def test_it_learns_to_translate_what_it_never_saw(task):
    model = tiny(task)
    before = task.evaluate(model, batches=2, batch_size=12, length=20, device="cpu")
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(150):
        batch = task.batch(step, seed=0, batch_size=32, length=20)
        optimizer.zero_grad()
        task.loss(model(*batch), batch).backward()
        optimizer.step()
    after = task.evaluate(model, batches=2, batch_size=12, length=20, device="cpu")
    assert before["bleu"] < 5
    assert after["bleu"] > 60
    assert after["valid_loss"] < 0.3 * before["valid_loss"]
    assert model.training


def test_bleu_is_sacrebleus_on_the_same_held_out_pairs_for_every_model(task):
    class Oracle(torch.nn.Module):
        """Knows every held-out translation."""

        def forward(self, source, target):
            known = {tuple(a): b for a, b in task._encoded["valid"]}
            logits = torch.full((*target.shape, task.describe()["vocab"]), -20.0)
            for row, tokens in enumerate(source.tolist()):
                answer = known[tuple(token for token in tokens if token != PAD)]
                for t in range(target.shape[1]):
                    logits[row, t, answer[min(t + 1, len(answer) - 1)]] = 20.0
            return logits

    metrics = task.evaluate(Oracle(), batches=1, batch_size=10, length=20, device="cpu")
    assert metrics["bleu"] == pytest.approx(100)
    assert metrics["valid_loss"] < 1e-3


def test_samples_are_the_same_held_out_pairs_for_every_model_with_its_own_translations(monkeypatch, task):
    monkeypatch.setattr("gradlens.lab.tasks.translation._LETTERS_SHOWN", range(1000))
    models = [tiny(task, seed=seed) for seed in (0, 1)]
    first, second = (task.samples(model) for model in models)
    pairs = [(sample["source"], sample["reference"]) for sample in first]
    assert pairs == [(sample["source"], sample["reference"]) for sample in second]
    assert set(pairs) <= set(task._data.splits["valid"])
    with torch.no_grad():
        assert [s["translation"] for s in first] == task.translate(models[0].eval(), [source for source, _ in pairs])


@pytest.mark.parametrize("package", ["sacrebleu", "tokenizers"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(GradlensError, match=rf"needs the package {package}.*\[tasks\]"):
        Translation(data=made_up(), vocab=300)


def test_a_plain_variant_is_refused(task):
    with pytest.raises(ModelError, match="plain"):
        task.model("plain")


@pytest.mark.parametrize("name", ["translation", "translation-de-en", "translation-en-vi"])
def test_each_pair_of_languages_is_a_task(name):
    try:
        task = TASKS[name]()
    except GradlensError as absent:
        pytest.skip(str(absent))
    assert task.name == name
    about = task.describe()
    assert about["train_pairs"] > 10_000
    assert about["valid_pages"] > 50
    assert task.uniform_loss == pytest.approx(math.log(4000))
    assert "tok:13a" in about["bleu"]
