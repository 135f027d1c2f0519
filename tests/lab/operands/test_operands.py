import pytest

from gradlens.errors import GradlensError, RecordingError
from gradlens.lab.operands import RunFolder, Variant, parse, runs_in
from gradlens.lab.operands.user_model import UserModel
from gradlens.lab.tasks import TASKS
from gradlens.lab.training.settings import Settings
from gradlens.recording.folder import write_json

SETTINGS = Settings(layers=1, width=8, heads=2, seeds=2, batch_size=2, length=8, steps=3)


@pytest.fixture
def user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str, name: str = "build", **options):
        (tmp_path / "mine.py").write_text(f"import torch\nfrom torch import nn\n{source}\n")
        return parse([f"mine.py:{name}"], **options)[0]

    return write


def test_a_variant_goes_by_its_shortest_name():
    shortest = [Variant("pre-ln"), Variant("post-ln/rmsnorm"), Variant("rezero"), Variant("norm-free")]
    assert parse(["pre-ln/layernorm", "post-ln/rmsnorm", "rezero", "norm-free/none"]) == shortest


def test_the_same_operand_twice_is_a_slip():
    with pytest.raises(GradlensError, match="given twice"):
        parse(["pre-ln", "pre-ln/layernorm"])


def test_a_name_of_the_zoo_goes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pre-ln").mkdir()
    write_json(tmp_path / "pre-ln" / "manifest.json", {"schema": 1, "kind": "init"})
    assert parse(["pre-ln"]) == [Variant("pre-ln")]
    assert isinstance(parse(["./pre-ln"])[0], RunFolder)


def test_a_comparison_stands_for_the_runs_that_were_begun(tmp_path):
    write_json(tmp_path / "manifest.json", {"schema": 1, "kind": "compare", "runs": ["runs/a", "runs/b"]})
    with pytest.raises(RecordingError, match="no run was begun"):
        runs_in(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    write_json(tmp_path / "runs" / "a" / "manifest.json", {"schema": 1, "kind": "init"})
    assert runs_in(tmp_path) == [tmp_path / "runs" / "a"]
    assert parse([str(tmp_path)]) == [RunFolder(tmp_path / "runs" / "a")]


def test_a_variant_is_measured_on_other_batches_for_other_seeds():
    task = TASKS["lm"]()
    subject = Variant("pre-ln").subject(task, SETTINGS)
    assert subject.at_init.batches(0).shape == (2, 8)
    assert not subject.at_init.batches(0).equal(subject.at_init.batches(1))
    assert subject.at_init.batches(0).equal(subject.at_init.batches(0))


def test_a_model_and_its_batch_come_from_one_build(user):
    source = """
count = 0
def build():
    global count
    count += 1
    model = nn.LayerNorm(3)
    nn.init.constant_(model.weight, count)
    return model, torch.full((1, 3), float(count))
"""
    subject = user(source).subject(TASKS["lm"](), SETTINGS)
    for seed in (4, 5):
        assert subject.at_init.batches(seed)[0, 0] == subject.at_init.build().weight[0]


def test_what_tells_a_model_from_another_includes_its_source(user):
    first = user("def build(width: int = 3): return nn.LayerNorm(width)", arguments=["width=4"])
    assert isinstance(first, UserModel)
    facts = first.facts()
    assert facts["operand"] == "mine.py:build"
    assert facts["arguments"] == {"width": 4}
    second = user("def build(width: int = 3): return nn.RMSNorm(width)", arguments=["width=4"])
    assert second.facts()["source_sha256"] != facts["source_sha256"]


def test_a_model_with_logits_over_the_vocabulary_is_trainable(user):
    source = """
def build(vocab):
    return nn.Sequential(nn.Embedding(vocab, 8), nn.LayerNorm(8), nn.Linear(8, vocab))
"""
    subject = user(source).subject(TASKS["lm"](), SETTINGS)
    assert subject.trainable
    assert subject.note == ""
    assert subject.at_init.loss_fn == subject.task.loss


def test_a_class_can_be_named_where_a_function_can(user):
    source = """
class Net(nn.Module):
    def __init__(self, vocab: int, width: int = 8):
        super().__init__()
        self.net = nn.Sequential(nn.Embedding(vocab, width), nn.LayerNorm(width), nn.Linear(width, vocab))

    def forward(self, tokens):
        return self.net(tokens)
"""
    subject = user(source, "Net", arguments=["width=4"]).subject(TASKS["lm"](), SETTINGS)
    assert subject.trainable
    assert subject.build().net[1].normalized_shape == (4,)


def test_files_of_the_same_name_in_two_folders_are_told_apart(tmp_path):
    code = "import torch\ndef build():\n    return torch.nn.LayerNorm(4), torch.randn(2, 4)\n"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.py").write_text(code)
    specs = [str(tmp_path / folder / "model.py") + ":build" for folder in ("a", "b")]
    assert [operand.label for operand in parse(specs)] == specs
    assert [operand.label for operand in parse(specs[:1])] == ["model.py:build"]
