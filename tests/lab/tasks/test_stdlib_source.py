import hashlib
import math
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gradlens.errors import GradlensError, ModelError
from gradlens.lab.tasks.stdlib_source import StdlibSource, read_corpus, split_of

ROOT = Path(sysconfig.get_path("stdlib"))


@pytest.fixture(scope="module")
def corpus():
    return read_corpus(ROOT)


@pytest.fixture
def library(tmp_path):
    """A small library: ``ast`` is trained on and ``json`` is held out, by their names' hashes."""
    assert (split_of("ast.py"), split_of("json/decoder.py")) == ("train", "valid")
    files = {
        "ast.py": b"abab" * 10,
        "json/__init__.py": b"aaab" * 5,
        "json/decoder.py": b"b" * 20,
        "json/tests/test_it.py": b"test",
        "test/test_ast.py": b"test",
        "encodings/cp1250.py": b"generated",
        "site-packages/numpy.py": b"not the library",
        "lib-dynload/ast.py": b"not the library",
        "ast.txt": b"no source",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_only_the_librarys_own_source_is_read(library):
    read = read_corpus(library)
    assert [path for path, _ in read.files] == ["ast.py", "json/__init__.py", "json/decoder.py"]
    assert read.splits["train"].tobytes() == b"abab" * 10 + b"\0"
    assert read.splits["valid"].tobytes() == b"aaab" * 5 + b"\0" + b"b" * 20 + b"\0"


def test_no_file_and_no_module_is_in_both_splits(corpus):
    paths = [path for path, _ in corpus.files]
    assert len(set(paths)) == len(paths) > 300
    modules = {split: {p.split("/")[0] for p, s in corpus.files if s == split} for split in ("train", "valid")}
    assert not modules["train"] & modules["valid"]
    assert len(modules["valid"]) >= 5
    held_out = corpus.splits["valid"].size / sum(text.size for text in corpus.splits.values())
    assert 0.02 < held_out < 0.10


def test_tests_and_installed_packages_are_left_out(corpus):
    parts = {part for path, _ in corpus.files for part in path.split("/")}
    assert not parts & {"test", "tests", "site-packages", "dist-packages", "encodings"}
    assert {path.split("/")[0].removesuffix(".py") for path, _ in corpus.files} <= sys.stdlib_module_names


def test_validation_windows_do_not_repeat_training_text(corpus):
    task, train = StdlibSource(), corpus.splits["train"].tobytes()
    windows = task.batch(0, seed=0, batch_size=200, length=64, split="valid")
    repeated = sum(bytes(window.tolist()) in train for window in windows)
    assert repeated <= 2
    trained_on = task.batch(0, seed=0, batch_size=20, length=64)
    assert all(bytes(window.tolist()) in train for window in trained_on)


def test_every_place_of_the_text_can_be_drawn(library):
    task = StdlibSource(library)
    text = b"abab" * 10 + b"\0"
    windows = {bytes(w.tolist()) for w in task.batch(0, seed=0, batch_size=2000, length=39)}
    assert windows == {text[i : i + 39] for i in range(3)}


def test_the_hash_changes_with_any_byte_or_name_and_with_nothing_else(library, tmp_path_factory):
    expected = hashlib.sha256()
    for name in ("ast.py", "json/__init__.py", "json/decoder.py"):
        expected.update(name.encode() + b"\0" + (library / name).read_bytes() + b"\0")
    assert StdlibSource(library).describe()["sha256"] == expected.hexdigest()
    (library / "test" / "more.py").write_bytes(b"more tests")
    read_corpus.cache_clear()
    assert StdlibSource(library).describe()["sha256"] == expected.hexdigest()
    (library / "ast.py").write_bytes(b"abab" * 9 + b"abac")
    read_corpus.cache_clear()
    assert StdlibSource(library).describe()["sha256"] != expected.hexdigest()


def test_unigram_bits_are_the_cross_entropy_of_the_training_frequencies(library):
    train, valid = b"abab" * 10 + b"\0", b"aaab" * 5 + b"\0" + b"b" * 20 + b"\0"
    p = {byte: (train.count(byte) + 1) / (len(train) + 256) for byte in set(valid)}
    expected = -sum(math.log2(p[byte]) for byte in valid) / len(valid)
    assert StdlibSource(library).describe()["unigram_bits"] == pytest.approx(expected, rel=1e-12)


def test_the_loss_is_the_mean_surprise_at_each_next_byte_in_nats():
    task = StdlibSource()
    tokens = task.batch(0, seed=0, batch_size=3, length=5)
    logits = torch.randn(3, 5, 256, generator=torch.Generator().manual_seed(0)).double()
    surprise = [
        np.log(np.exp(logits[b, t].numpy()).sum()) - float(logits[b, t, tokens[b, t + 1]])
        for b in range(3)
        for t in range(4)
    ]
    assert float(task.loss(logits, tokens)) == pytest.approx(np.mean(surprise), rel=1e-6)
    assert float(task.loss(SimpleNamespace(logits=logits), tokens)) == float(task.loss(logits, tokens))


def test_a_uniform_guess_loses_uniform_loss_which_is_eight_bits():
    task = StdlibSource()
    tokens = task.batch(0, seed=0, batch_size=2, length=8)
    assert float(task.loss(torch.zeros(2, 8, 256), tokens)) == pytest.approx(task.uniform_loss, rel=1e-6)

    def guess(tokens):
        return torch.zeros(*tokens.shape, 256)

    model = torch.nn.Module()
    model.forward = guess
    metrics = task.evaluate(model, batches=2, batch_size=2, length=8, device="cpu")
    assert metrics["bits_per_byte"] == pytest.approx(8, rel=1e-6)


@pytest.mark.parametrize(
    ("output", "got"),
    [
        (torch.zeros(2, 7, 256), "(2, 7, 256)"),
        (torch.zeros(2, 8, 100), "(2, 8, 100)"),
        (torch.zeros(2, 8), "(2, 8)"),
        ("text", "str"),
    ],
)
def test_an_output_that_is_no_logits_says_what_is_needed_and_what_came(output, got):
    task = StdlibSource()
    tokens = task.batch(0, seed=0, batch_size=2, length=8)
    with pytest.raises(ModelError) as error:
        task.loss(output, tokens)
    assert "(2, 8, 256)" in str(error.value)
    assert got in str(error.value)


@pytest.mark.parametrize("length", [1, 10**9])
def test_a_window_that_does_not_fit_the_text_is_refused(length):
    with pytest.raises(GradlensError, match=f"length is {length}"):
        StdlibSource().batch(0, seed=0, batch_size=1, length=length)


def test_a_python_without_source_is_named(tmp_path):
    with pytest.raises(GradlensError, match="holds 0 of its files") as error:
        StdlibSource(tmp_path)
    assert str(tmp_path) in str(error.value)
