"""The task ``parsing`` on a tiny treebank that each test writes, and on UD English EWT where that is here."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gradlens.batches import run_model
from gradlens.errors import GradlensError, ModelError
from gradlens.lab.tasks import TASKS
from gradlens.lab.tasks.parsing.task import Parsing
from gradlens.lab.tasks.parsing.treebank import read_treebank
from tests.lab.tasks import tiny_treebank

SHAPE = {"batch_size": 8, "length": 16}
#: Beside the checkout; it is read in place and never copied.
EWT = Path(__file__).parents[3] / "shared" / "data" / "ud_english_ewt"
needs_ewt = pytest.mark.skipif(not EWT.is_dir(), reason="UD English EWT is not in shared/data beside the checkout")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_treebank.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def task(folder):
    return Parsing(folder)


def read_of(task):
    return task._treebank


def train(task, *, steps, lr=5e-3, shuffled=False, **size):
    """Train a parser; ``shuffled`` gives each state the right transition of another."""
    torch.manual_seed(0)
    model = task.model("plain", **size)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for step in range(steps):
        batch = task.batch(step, seed=0, batch_size=8, length=64)
        if shuffled:
            order = torch.randperm(len(batch["transitions"]), generator=torch.Generator().manual_seed(step))
            batch["transitions"] = batch["transitions"][order]
        optimizer.zero_grad()
        task.loss(run_model(model, batch), batch).backward()
        optimizer.step()
    return model


def evaluate(task, model):
    return task.evaluate(model, batches=4, device="cpu", **SHAPE)


def test_a_parser_learns_the_grammar_and_loses_only_the_trees_it_cannot_build(task):
    before = evaluate(task, task.model("plain", width=32))
    after = evaluate(task, train(task, steps=120, width=32))
    assert after["valid_loss"] < 0.1 < 2 < before["valid_loss"]
    assert after["las"] > 95 > 40 > before["las"]
    assert after["las"] <= after["uas"] < 100  # two trees are not projective: they are parsed and scored nevertheless


def test_a_run_on_shuffled_transitions_falls_to_chance(task):
    metrics = evaluate(task, train(task, steps=120, width=32, shuffled=True))
    _, transitions = read_of(task).oracle["train"]
    share = np.bincount(transitions, minlength=read_of(task).symbols.transitions) / len(transitions)
    entropy = -sum(p * math.log(p) for p in share if p)
    assert metrics["valid_loss"] > 0.95 * entropy  # what knowing only how often each transition occurs loses
    assert metrics["las"] < 25


def test_trees_that_are_not_projective_are_counted_and_kept_out_of_training_only(task):
    about = task.describe()
    assert (about["train_sentences"], about["train_nonprojective"]) == (301, 1)
    assert (about["valid_sentences"], about["valid_nonprojective"]) == (62, 2)
    crossing = 2 * len(tiny_treebank.CROSSING)
    assert about["train_transitions"] == 2 * about["train_words"] - crossing
    assert about["valid_transitions"] == 2 * about["valid_words"] - 2 * crossing
    assert "hearing" not in read_of(task).symbols.words
    assert json.loads(json.dumps(about)) == about


def test_a_batch_is_as_many_states_as_batch_size_times_length_and_right_by_the_oracle(task):
    batch = task.batch(3, seed=5, **SHAPE)
    assert (batch["states"].shape, batch["transitions"].shape) == ((128, 48), (128,))
    states, transitions = read_of(task).oracle["train"]
    known = {(*row, number) for row, number in zip(states.tolist(), transitions.tolist(), strict=True)}
    assert {(*row, n) for row, n in zip(batch["states"].tolist(), batch["transitions"].tolist(), strict=True)} <= known


def test_a_batch_depends_on_index_seed_and_split_alone(task, folder):
    first = task.batch(3, seed=5, **SHAPE)
    torch.manual_seed(99)
    again = Parsing(folder).batch(3, seed=5, **SHAPE)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for other in ({"index": 4}, {"seed": 6}, {"split": "valid"}):
        batch = task.batch(**{"index": 3, "seed": 5, **SHAPE, **other})
        assert not torch.equal(first["states"], batch["states"])


def test_a_guess_that_prefers_nothing_loses_uniform_loss(task):
    batch = task.batch(0, seed=0, **SHAPE)
    scores = torch.zeros(128, read_of(task).symbols.transitions)
    assert float(task.loss(scores, batch)) == pytest.approx(task.uniform_loss, rel=1e-6)
    assert task.uniform_loss == pytest.approx(math.log(1 + 2 * task.describe()["relations"]))


@pytest.mark.parametrize(("output", "got"), [(torch.zeros(128, 3), r"\(128, 3\)"), ("text", "str")])
def test_an_output_that_is_no_scores_says_what_is_needed_and_what_came(task, output, got):
    with pytest.raises(ModelError, match=rf"needs scores of shape \(128, \d+\).* the model gave {got}"):
        task.loss(output, task.batch(0, seed=0, **SHAPE))


def test_the_validation_split_is_scored_whole_whatever_the_batches(task):
    model = task.model("plain", width=8)
    few, many = (task.evaluate(model, batches=n, device="cpu", **SHAPE) for n in (1, 3))
    assert (few["uas"], few["las"]) == (many["uas"], many["las"])
    assert few["valid_loss"] != many["valid_loss"]


def test_evaluation_leaves_flags_weights_and_random_numbers_as_they_were(task):
    model = task.model("plain", width=8, dropout=0.5)
    model.norm0.eval()
    flags, state = [module.training for module in model.modules()], torch.get_rng_state()
    assert evaluate(task, model) == evaluate(task, model)
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("variant", ["pre-ln", "post-ln/adanorm"])
def test_arrangements_of_residual_blocks_are_refused(task, variant):
    with pytest.raises(ModelError, match="must have the arrangement 'plain'"):
        task.model(variant, width=8, blocks=1, heads=2)


def test_without_data_the_command_that_links_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADLENS_DATA", str(tmp_path / "none"))
    with pytest.raises(GradlensError, match="gradlens data fetch ud-ewt --from FOLDER"):
        TASKS["parsing"]()


def test_of_a_folder_its_name_is_told_and_no_path_of_this_machine(task, folder, monkeypatch):
    assert task.describe()["origin"] == f"folder: {folder.name}"
    monkeypatch.chdir(folder)
    assert Parsing(Path()).describe()["origin"] == f"folder: {folder.name}"
    assert str(folder.parent) not in json.dumps(task.describe())


def test_the_linked_treebank_is_read_in_place_and_described(tmp_path, monkeypatch):
    tiny_treebank.link(tiny_treebank.write(tmp_path / "treebank"), tmp_path / "store", monkeypatch)
    about = TASKS["parsing"]().describe()
    assert {"version", "sha256", "origin", "licence", "unit"} <= about.keys()
    assert about["origin"].endswith("(folder: treebank)")
    assert str(tmp_path) not in json.dumps(about)
    assert not list((tmp_path / "store").rglob("*.conllu*"))
    file = tmp_path / "treebank" / "xx_tiny-ud-dev.conllu.gz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(GradlensError, match=r"xx_tiny-ud-dev.conllu.gz is changed or cut off"):
        TASKS["parsing"]()


def test_a_missing_split_and_one_without_projective_trees_are_errors(tmp_path):
    with pytest.raises(GradlensError, match="none of its 1 is"):
        read_treebank(tiny_treebank.write(tmp_path / "crossing", train=[tiny_treebank.CROSSING]))
    folder = tiny_treebank.write(tmp_path / "no-dev")
    (folder / "xx_tiny-ud-dev.conllu.gz").unlink()
    with pytest.raises(GradlensError, match=r"one file \*-dev.conllu"):
        read_treebank(folder)


@needs_ewt
def test_the_splits_of_ewt_have_no_document_in_common_and_repeat_few_words():
    documents = {}
    for split in ("train", "dev", "test"):
        with gzip.open(EWT / f"en_ewt-ud-{split}.conllu.gz", "rt", encoding="utf-8") as file:
            documents[split] = {line for line in file if line.startswith("# newdoc id")}
        assert len(documents[split]) > 300
    assert not documents["train"] & (documents["dev"] | documents["test"])
    assert not documents["dev"] & documents["test"]
    bank = read_treebank(EWT)
    trained_on = {sentence.forms for sentence in bank.sentences["train"]}
    repeated = [len(sentence) for sentence in bank.sentences["valid"] if sentence.forms in trained_on]
    assert len(repeated) == bank.repeated  # "Thank you .", and the like
    assert sum(repeated) < 0.01 * sum(map(len, bank.sentences["valid"]))


@needs_ewt
def test_ewt_is_read_whole_and_its_crossing_trees_are_counted():
    about = Parsing(EWT).describe()
    assert (about["train_sentences"], about["valid_sentences"]) == (12544, 2001)
    assert (about["train_words"], about["valid_words"]) == (204577, 25147)
    assert 0.01 < about["train_nonprojective"] / 12544 < 0.03
    assert 0.01 < about["valid_nonprojective"] / 2001 < 0.03


@needs_ewt
def test_a_few_seconds_of_training_parse_most_words_of_ewt_and_those_on_shuffled_transitions_do_not():
    task = Parsing(EWT)
    assert task.attachment(train(task, steps=300, width=64))["las"] > 60
    assert task.attachment(train(task, steps=60, width=64, shuffled=True))["las"] < 15
