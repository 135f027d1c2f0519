"""``hf:...`` as an operand: every architecture is inspected from its file; what is wrong is said in one line."""

import json
import sys

import pytest

from tests.cli.conftest import TINY, read_json
from tests.lens.architectures import ARCHITECTURES

transformers = pytest.importorskip("transformers", reason='needs transformers: pip install -e ".[hf]"')

SMALL = ["--seeds", "1", "--batch-size", "2", "--length", "12", "--device", "cpu"]
SIZES = ["-m", "num_hidden_layers=2", "-m", "hidden_size=16", "-m", "num_attention_heads=2"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """What the operand sets for the process is undone, and no test can reach the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write(folder, name: str):
    """Write an architecture's configuration as a user would have it."""
    path = folder / "config.json"
    path.write_text(json.dumps(ARCHITECTURES[name].values()))
    return path


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_inspected_from_its_file_with_a_batch_of_its_own(gradlens, folder, name):
    found = read_json(gradlens("inspect", f"hf:{write(folder, name)}", *SMALL, "--json"))
    assert found["audit"]["problems"] == []
    assert len(found["sites"]) == ARCHITECTURES[name].count
    assert found["model"]["family"] == ARCHITECTURES[name].cls
    assert found["loss"] == "the output's own .loss"
    for site in found["sites"]:
        assert site["recentering"] + site["rescaling"] + site["kept"] == pytest.approx(1, abs=1e-4)


def test_a_model_type_is_sized_by_settings_under_the_names_that_families_share(gradlens):
    found = read_json(gradlens("inspect", "hf:gpt2", *SMALL, *SIZES, "-m", "resid_pdrop=0", "--json"))
    assert found["label"] == "hf:gpt2"
    assert [site["width"] for site in found["sites"]] == [16] * 5


def test_a_folder_with_weights_is_a_trained_network_and_the_same_for_every_seed(gradlens, folder):
    config = transformers.AutoConfig.for_model(**ARCHITECTURES["BERT"].values())
    model = transformers.BertForMaskedLM(config)
    model.bert.embeddings.LayerNorm.weight.data.fill_(5.0)
    model.save_pretrained(folder / "mine")
    gradlens("inspect", "hf:mine", *SMALL[2:], "--seeds", "2", "--out", "run")
    from gradlens import load

    recording = load("run")
    assert recording.meta["label"] == "hf:mine (trained)"
    assert len(recording.meta["operand"]["weights_sha256"]) == 64
    params = recording.params[recording.params["name"] == "bert.embeddings.LayerNorm.weight"]
    assert params["weight_norm"].tolist() == pytest.approx([20.0, 20.0])  # 5 times the root of 16
    assert recording.steps["loss"].nunique() == 2


def test_a_batch_of_the_users_goes_before_the_automatic_one(gradlens, folder):
    (folder / "mine.py").write_text("import torch\ndef batch():\n    return {'input_ids': torch.zeros(1, 3).long()}\n")
    found = gradlens("inspect", "hf:gpt2", *SMALL, *SIZES, "--batch", "mine.py:batch", "--json")
    assert "random direction" in read_json(found)["loss"]


def test_two_are_compared_and_those_over_the_tasks_tokens_are_trained_too(gradlens, folder):
    sizes = ["-m", "num_hidden_layers=2", "-m", "hidden_size=16", "-m", "num_attention_heads=2", "-m", "vocab_size=256"]
    result = gradlens("compare", "hf:gpt2", "hf:bert", *TINY, *sizes, "--seeds", "2", "--steps", "3", "--out", "out")
    assert result.exit_code == 0
    assert "hf:bert is measured at initialization only: it sees the tokens" in result.stderr
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert [run.split("runs/")[1] for run in manifest["runs"]] == [
        "hf-gpt2/init",
        "hf-bert/init",
        "hf-gpt2/no-warm-up",
        "hf-gpt2/warm-up",
    ]


def test_another_vocabulary_is_measured_at_initialization_only(gradlens):
    sizes = [*SIZES, "-m", "vocab_size=300"]
    result = gradlens("compare", "hf:gpt2", "hf:opt", *TINY, *sizes, "--seeds", "2", "--out", "out")
    assert "-m vocab_size=256 sets it" in result.stderr


@pytest.mark.parametrize(
    ("operand", "options", "said"),
    [
        ("hf:brt", [], "Did you mean hf:bert"),
        ("hf:google/bert", [], "downloads nothing"),
        ("hf:empty", [], "has no config.json"),
        ("hf:", [], "model type (hf:bert)"),
        ("hf:none.json", [], "hf: takes a model type"),
        ("hf:broken.json", [], "must be a configuration in JSON"),
        ("hf:list.json", [], "must hold a JSON object"),
        ("hf:untyped.json", [], "must name its model_type"),
        ("hf:strange.json", [], "Did you mean bert"),
        ("hf:wrong.json", [], "must build a BertForMaskedLM"),
        ("hf:bert", ["-m", "hiden_size=3"], "Did you mean hidden_size"),
        ("hf:bert", ["-m", "hidden_size=wide"], "must be of type int"),
        ("hf:bert", ["-m", "hidden_size=30"], "must build a BertForMaskedLM"),
        ("hf:llama", ["-m", "hidden_size=1000000"], "must fit into memory"),
        ("hf:bert", [*SIZES, "--batch", "nowhere:batch"], "No module named 'nowhere'"),
        ("hf:audio-spectrogram-transformer", SIZES, "--batch pkg.mod:fn"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line_with_what_to_do(gradlens, folder, operand, options, said):
    (folder / "empty").mkdir()
    for name, text in {
        "broken": "{",
        "list": "[]",
        "untyped": "{}",
        "strange": '{"model_type": "brt"}',
        "wrong": '{"model_type": "bert", "hidden_size": 30}',
    }.items():
        (folder / f"{name}.json").write_text(text)
    result = gradlens("inspect", operand, *SMALL, *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_weights_that_are_not_all_there_are_not_called_trained(gradlens, folder):
    config = transformers.AutoConfig.for_model(**ARCHITECTURES["BERT"].values())
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder / "mine")
    values = json.loads((folder / "mine" / "config.json").read_text())
    (folder / "mine" / "config.json").write_text(json.dumps({**values, "architectures": ["BertForMaskedLM"]}))
    result = gradlens("inspect", "hf:mine", *SMALL)
    assert result.exit_code == 2
    assert "are missing" in result.stderr


def test_two_folders_of_the_same_name_are_told_apart(gradlens, folder):
    for parent in ("a", "b"):
        (folder / parent / "model").mkdir(parents=True)
        write(folder / parent / "model", "GPT-2")
    operands = [f"hf:{parent}/model" for parent in ("a", "b")]
    gradlens("compare", *operands, *TINY, "--seeds", "2", "--init-only", "--out", "out")
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert [operand["operand"] for operand in manifest["operands"]] == operands


def test_without_the_package_the_error_says_how_to_install_it(gradlens, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    result = gradlens("inspect", "hf:bert")
    assert result.exit_code == 2
    assert 'pip install -c constraints.txt -e ".[hf]"' in result.stderr
