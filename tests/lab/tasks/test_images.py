"""The task images: MNIST's digits, split without a leak; what is learned is learned from the labels."""

import dataclasses
import gzip
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from gradlens.errors import GradlensError, ModelError
from gradlens.lab.tasks.digits import TABLE, Digits, read_digits
from gradlens.lab.tasks.idx import read_idx, read_table
from gradlens.lab.tasks.images import Images
from gradlens.lab.tasks.sources import located
from gradlens.lab.training.config import TrainingConfig
from gradlens.lab.training.trainer import train
from tests.lab.tasks import test_tasks as contract
from tests.lab.tasks import tiny_mnist

SHAPE = {"batch_size": 8, "length": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """120 training images of the published format, and no test images."""
    tiny_mnist.write(tmp_path / "mnist", "train", *tiny_mnist.digits(120))
    return tmp_path / "mnist"


@pytest.fixture
def task(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    tiny_mnist.link(folder, tmp_path / "store", monkeypatch)
    return Images()


def as_rows(digits: Digits, split: str) -> set[bytes]:
    return {image.tobytes() for image in digits.images[split]}  # type: ignore[index]


# --- reading


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_as_they_were_written(tmp_path: Path, packed: bool) -> None:
    images, labels = tiny_mnist.digits(7)
    tiny_mnist.write(tmp_path, "train", images, labels, packed=packed)
    end = ".gz" if packed else ""
    assert np.array_equal(read_idx(tmp_path / f"train-images-idx3-ubyte{end}", 3), images)
    assert np.array_equal(read_idx(tmp_path / f"train-labels-idx1-ubyte{end}", 1), labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\x00\x08\x01" + b"\x00\x00\x00\x02ab", "begins with the bytes 00 00 08 03; it begins with 00 00 08 01"),
        (b"\x00\x00\x0d\x03" + b"\x00" * 12, "it begins with 00 00 0d 03"),
        (b"<html>not found</html>", "it begins with 3c 68 74 6d"),
        (b"", "it begins with nothing"),
        (tiny_mnist.idx(np.zeros((2, 3, 3)))[:-1], r"must have 34 bytes, as its head says \(2 x 3 x 3\); it has 33"),
        (tiny_mnist.idx(np.zeros((2, 3, 3))) + b"!", "it has 35. It is cut off or damaged"),
        (b"\x00\x00\x08\x03\x00\x00", "it has 6"),
    ],
)
def test_a_file_that_is_no_idx_file_of_images_is_an_error_that_says_what_is_in_it(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(GradlensError, match=message) as error:
        read_idx(path, 3)
    assert str(path) in str(error.value)


def test_a_packed_file_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(tiny_mnist.idx(np.arange(100)))[:-9])
    with pytest.raises(GradlensError, match=r"labels\.gz must be a file that can be read"):
        read_idx(path, 1)


def test_a_table_is_pixels_and_then_the_label_in_each_line(tmp_path: Path) -> None:
    images, labels = tiny_mnist.digits(5)
    rows = [[*image.ravel(), label] for image, label in zip(images, labels, strict=True)]
    text = "\n".join(",".join(f"{value}.0" if i % 7 else str(value) for i, value in enumerate(row)) for row in rows)
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(text.encode()))
    got = read_table(tmp_path / "table.csv.gz", 28)
    assert np.array_equal(got[0], images)
    assert np.array_equal(got[1], labels)


@pytest.mark.parametrize("line", ["1,2,3", ",".join(["0"] * 784 + ["x"]), ",".join(["256"] * 785), "-1," * 784 + "0"])
def test_a_broken_line_of_a_table_is_an_error_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(",".join(["0"] * 785) + "\n" + line + "\n")
    with pytest.raises(GradlensError, match="line 2, must hold 784 pixel values from 0 to 255 and a label"):
        read_table(path, 28)


# --- the splits


def test_a_fifth_of_each_digit_is_held_out_and_nothing_is_on_both_sides(folder: Path) -> None:
    digits = read_digits(folder)
    assert list(np.bincount(digits.labels["valid"])) == [2] * 10  # a fifth of 12, rounded down
    assert list(np.bincount(digits.labels["train"])) == [10] * 10
    assert not as_rows(digits, "train") & as_rows(digits, "valid")


def test_the_split_is_by_content_and_not_by_order(tmp_path: Path) -> None:
    images, labels = tiny_mnist.digits(120)
    order = np.random.default_rng(0).permutation(120)
    tiny_mnist.write(tmp_path / "a", "train", images, labels)
    tiny_mnist.write(tmp_path / "b", "train", images[order], labels[order])
    a, b = read_digits(tmp_path / "a"), read_digits(tmp_path / "b")
    for split in ("train", "valid"):
        assert np.array_equal(a.images[split], b.images[split])
        assert np.array_equal(a.labels[split], b.labels[split])


def test_an_image_that_occurs_twice_is_taken_once(tmp_path: Path) -> None:
    images, labels = tiny_mnist.digits(120)
    twice = np.concatenate([images, images[:30]])
    other_labels = np.concatenate([labels, (labels[:30] + 1) % 10])
    tiny_mnist.write(tmp_path, "train", twice, other_labels)
    digits = read_digits(tmp_path)
    assert digits.repeated == 30
    assert len(as_rows(digits, "train") | as_rows(digits, "valid")) == 120
    assert sum(len(part) for part in digits.labels.values()) == 120


def test_mnists_own_test_files_are_held_out_and_taken_from_what_is_trained_on(tmp_path: Path) -> None:
    images, labels = tiny_mnist.digits(120)
    test, test_labels = tiny_mnist.digits(40, seed=1)
    test[:5], test_labels[:5] = images[:5], labels[:5]
    tiny_mnist.write(tmp_path, "train", images, labels)
    tiny_mnist.write(tmp_path, "t10k", test, test_labels, packed=True)
    digits = read_digits(tmp_path)
    assert np.array_equal(digits.images["valid"], test)
    assert len(digits.labels["train"]) == 115
    assert not as_rows(digits, "train") & as_rows(digits, "valid")
    assert "test files" in digits.split


def damage(folder: Path, name: str) -> str:
    """Spoil a folder in a way of this name; return what the error must say."""
    images, labels = tiny_mnist.digits(20)
    if name == "no files":
        for file in folder.iterdir():
            file.unlink()
        return "neither is there. Get the files, then run: gradlens data fetch mnist --from FOLDER"
    if name == "no labels":
        (folder / "train-labels-idx1-ubyte").unlink()
        return "only train-images-idx3-ubyte is there"
    if name == "other labels":
        (folder / "train-labels-idx1-ubyte").write_bytes(tiny_mnist.idx(labels))
        return "has 120 images and .* has 20 labels"
    if name == "other images":
        tiny_mnist.write(folder, "train", images[:, :20], labels)
        return "must have 28 x 28 pixels .* have 20 x 28"
    if name == "letters":
        tiny_mnist.write(folder, "train", images, labels + 10)
        return "labels from 0 to 9; .* go up to 19"
    if name == "too few":
        tiny_mnist.write(folder, "train", images, labels)
        return "The valid split of MNIST must hold images"
    tiny_mnist.write(folder, "t10k", *tiny_mnist.digits(120))  # the very images that are trained on
    return "The train split of MNIST must hold images"


@pytest.mark.parametrize(
    "name", ["no files", "no labels", "other labels", "other images", "letters", "too few", "same test"]
)
def test_data_that_cannot_be_used_is_an_error_that_says_why(folder: Path, name: str) -> None:
    message = damage(folder, name)
    read_digits.cache_clear()
    with pytest.raises(GradlensError, match=message) as error:
        read_digits(folder)
    assert str(folder) in str(error.value)


def test_data_that_is_not_here_is_an_error_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADLENS_DATA", str(tmp_path))
    with pytest.raises(GradlensError, match="Run: gradlens data fetch mnist"):
        Images()


def test_a_file_that_was_cut_off_since_is_an_error(task: Images, folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(GradlensError, match="changed or cut off"):
        Images()


# --- the task


@pytest.mark.parametrize(
    "holds",
    [
        contract.test_a_batch_is_a_pure_function_of_its_arguments,
        contract.test_the_description_is_json_and_says_where_the_data_comes_from,
        contract.test_evaluation_leaves_the_model_and_the_random_numbers_as_they_were,
        contract.test_the_held_out_loss_is_the_mean_over_validation_batches,
        contract.test_a_failed_evaluation_puts_the_training_flags_back,
    ],
    ids=lambda test: test.__name__,
)
def test_what_every_task_keeps_to_holds_without_mnist_itself(task: Images, holds: Callable[[Images], None]) -> None:
    holds(task)


def test_each_pass_takes_every_image_once_in_an_order_of_its_own(task: Images) -> None:
    def drawn(first: int, count: int, seed: int = 0) -> list[bytes]:
        batches = [task.batch(i, seed=seed, batch_size=20, length=2) for i in range(first, first + count)]
        return [image.numpy().tobytes() for batch in batches for image in batch["images"]]  # type: ignore[index]

    first, second = drawn(0, 5), drawn(5, 5)  # 100 images, 20 at a time
    assert len(set(first)) == 100
    assert set(first) == set(second)
    assert first != second
    assert first != drawn(0, 5, seed=1)


def test_a_batch_may_reach_over_the_end_of_a_pass_or_hold_several(task: Images) -> None:
    def labels(batches: int, size: int) -> list[int]:
        drawn = [task.batch(i, seed=0, batch_size=size, length=2) for i in range(batches)]
        return [label for batch in drawn for label in batch["labels"].tolist()]  # type: ignore[index]

    assert labels(1, 250) == labels(5, 50)
    assert labels(1, 240) == labels(8, 30)


def test_images_are_in_the_unit_interval_with_their_labels_and_length_changes_nothing(task: Images) -> None:
    batch, other = (task.batch(0, seed=0, batch_size=8, length=length) for length in (2, 64))
    assert isinstance(batch, dict)
    assert batch["images"].shape == (8, 28, 28)
    assert 0.5 < float(batch["images"].max()) <= 1
    assert all(torch.equal(batch[key], other[key]) for key in batch)  # type: ignore[index]
    squares = [(3 + 12 * (d // 5), 2 + 5 * (d % 5)) for d in batch["labels"].tolist()]
    for image, (row, column) in zip(batch["images"], squares, strict=True):
        assert float(image[row : row + 6, column : column + 4].min()) * 255 >= 149.9


def test_the_metrics_are_those_of_all_held_out_images(task: Images) -> None:
    model = task.model("plain", width=2, blocks=1)
    metrics = [task.evaluate(model, batches=n, device="cpu", **SHAPE) for n in (1, 7)]
    assert metrics[0] == metrics[1]
    held_out = task.batch(0, seed=0, batch_size=20, length=2, split="valid")
    assert isinstance(held_out, dict)
    logits = model(**held_out).detach()
    assert metrics[0]["valid_loss"] == pytest.approx(float(task.loss(logits, held_out)), rel=1e-5)
    right = [int(row.argmax()) == label for row, label in zip(logits, held_out["labels"].tolist(), strict=True)]
    assert metrics[0]["accuracy"] == pytest.approx(np.mean(right))


def test_a_uniform_guess_loses_uniform_loss(task: Images) -> None:
    batch = task.batch(0, seed=0, **SHAPE)
    assert float(task.loss(torch.zeros(8, 10), batch)) == pytest.approx(task.uniform_loss, rel=1e-6)
    assert task.uniform_loss == pytest.approx(math.log(10))
    assert float(task.loss(SimpleNamespace(logits=torch.zeros(8, 10)), batch)) == pytest.approx(math.log(10))


@pytest.mark.parametrize(
    ("output", "got"), [(torch.zeros(8, 9), "(8, 9)"), (torch.zeros(7, 10), "(7, 10)"), ("text", "str")]
)
def test_an_output_that_is_no_logits_says_what_is_needed_and_what_came(task: Images, output: object, got: str) -> None:
    with pytest.raises(ModelError) as error:
        task.loss(output, task.batch(0, seed=0, **SHAPE))
    assert "(8, 10)" in str(error.value)
    assert got in str(error.value)


@pytest.mark.parametrize("variant", ["pre-ln", "post-ln/adanorm"])
def test_arrangements_of_residual_blocks_are_refused(task: Images, variant: str) -> None:
    with pytest.raises(ModelError, match="must have the arrangement 'plain'"):
        task.model(variant, width=8, blocks=2, heads=2)


# --- what is learned


class Shuffled(Images):
    """The same images, each with the label of another one to train on; what is held out keeps its own."""

    def __init__(self) -> None:
        super().__init__()
        labels = np.random.default_rng(0).permutation(self._digits.labels["train"])
        self._digits = dataclasses.replace(self._digits, labels=self._digits.labels | {"train": labels})


def accuracy(task: Images, *, width: int, variant: str = "plain", **config: object) -> float:
    """Of held-out images after training."""

    def build() -> nn.Module:
        return task.model(variant, width=width)

    settings = TrainingConfig(device="cpu", evaluate_every=0, every=1000, **config)  # type: ignore[arg-type]
    models: list[nn.Module] = []
    train(lambda: models.append(build()) or models[0], task, settings, label="run")  # type: ignore[func-returns-value]
    return task.evaluate(models[0], batches=1, device="cpu", **SHAPE)["accuracy"]


@pytest.mark.parametrize("norm", ["layernorm", "adanorm", "none"])
def test_easy_images_are_learned_in_a_few_steps(task: Images, norm: str) -> None:
    assert accuracy(task, width=4, variant=f"plain/{norm}", steps=60, batch_size=20, lr=3e-3) >= 0.9


def test_from_labels_that_tell_nothing_nothing_is_learned(task: Images) -> None:
    assert (
        accuracy(Shuffled(), width=4, steps=60, batch_size=20, lr=3e-3) <= 0.35
    )  # chance: 2 of 20; 8 or more has p = 4e-4


@pytest.fixture
def mnist() -> Images:
    try:
        located("mnist")
    except GradlensError as error:
        pytest.skip(f"needs MNIST itself: {error}")
    return Images()


def test_mnist_itself_is_split_without_a_leak(mnist: Images) -> None:
    about = mnist.describe()
    digits = read_digits(located("mnist"))
    assert not as_rows(digits, "train") & as_rows(digits, "valid")
    assert about["train_images"] + about["valid_images"] + about["repeated_images"] >= 5000
    if (located("mnist") / TABLE).is_file():
        assert (about["train_images"], about["valid_images"]) == (4000, 1000)
        assert set(np.bincount(digits.labels["valid"])) == {100}


def test_the_network_with_layernorm_reads_97_percent_of_held_out_digits(mnist: Images) -> None:
    assert accuracy(mnist, width=32, steps=625, batch_size=32, lr=1e-3, decay="linear") >= 0.97


def test_with_shuffled_labels_it_falls_to_chance(mnist: Images) -> None:
    # 1,000 answers at chance are right in 10 % ± 0.95 %; guessing one class is right in exactly 10 %.
    assert accuracy(Shuffled(), width=16, steps=300, batch_size=32, lr=1e-3) <= 0.15
