"""Data sets of the hub, as ``datasets`` reads them from local files; nothing here needs a network."""

import json
import sys

import pytest

from gradlens.errors import GradlensError
from gradlens.lab.tasks.bitext import read_bitext
from gradlens.lab.tasks.labelled_text import read_labelled_text
from gradlens.lab.tasks.sources import located, store

pytest.importorskip("datasets")
REVIEWS = {"train": [("a fine film", 1), ("a\tdull\nfilm", 0)], "validation": [("warm", 1), ("flat", 0)]}


@pytest.fixture(autouse=True)
def _empty_store(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADLENS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def repository(folder, **splits) -> str:
    """Write a data set as the hub keeps it: one file of JSON lines a split."""
    folder.mkdir()
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(folder)


def test_labelled_sentences_become_tsv(tmp_path):
    rows = {split: [{"sentence": text, "label": label} for text, label in pairs] for split, pairs in REVIEWS.items()}
    rows["test"] = [{"sentence": "not told", "label": -1}]
    name = repository(tmp_path / "hub", **rows)
    folder = store.fetch_from_hub("movie-reviews", name)
    assert sorted(path.name for path in folder.iterdir()) == ["provenance.json", "train.tsv", "valid.tsv"]
    data = read_labelled_text(located("movie-reviews"))
    assert data.splits == {
        "train": [("1", "a fine film"), ("0", "a dull film")],
        "valid": [("1", "warm"), ("0", "flat")],
    }
    (folder / "train.tsv").unlink()
    with pytest.raises(GradlensError, match=f"Run: gradlens data fetch movie-reviews --hub {name}"):
        located("movie-reviews")


def test_translations_become_aligned_text(tmp_path):
    pairs = {"train": ("Open it.", "Öffnen."), "test": ("Save it.", "Speichern.")}
    rows = {split: [{"translation": {"de": b, "en": a}}] for split, (a, b) in pairs.items()}
    store.fetch_from_hub("libreoffice-help", repository(tmp_path / "hub", **rows))
    data = read_bitext(located("libreoffice-help"), "en", "de")
    assert data.splits == {"train": [pairs["train"]], "valid": [pairs["test"]]}


def test_images_become_idx(tmp_path):
    import datasets
    from PIL import Image

    images = [Image.new("L", (3, 2), color=value) for value in (7, 250)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"image": images, "label": [4, 9]}, features=features)
    (tmp_path / "hub").mkdir()
    for split in ("train", "test"):
        rows.to_parquet(tmp_path / "hub" / f"{split}.parquet")
    folder = store.fetch_from_hub("mnist", str(tmp_path / "hub"))
    names = [f"{part}-{kind}-ubyte" for part in ("t10k", "train") for kind in ("images-idx3", "labels-idx1")]
    assert sorted(path.name for path in folder.iterdir()) == ["provenance.json", *names]
    head = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3])
    assert (folder / "train-images-idx3-ubyte").read_bytes() == head + bytes([7] * 6 + [250] * 6)
    assert (folder / "train-labels-idx1-ubyte").read_bytes() == bytes([0, 0, 8, 1, 0, 0, 0, 2, 4, 9])


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("movie-reviews", {"train": [{"review": "a"}], "test": [{"review": "b"}]}, "columns text .* has review"),
        ("libreoffice-help", {"train": [{"en": "a"}], "test": [{"en": "b"}]}, "translation, .* has en"),
        ("movie-reviews", {"train": [{"text": "a", "label": 0}]}, "one of validation, test; .* has train"),
        ("ud-ewt", {}, "--from FOLDER"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_kept(tmp_path, name, rows, message):
    with pytest.raises(GradlensError, match=message):
        store.fetch_from_hub(name, repository(tmp_path / "hub", **rows))
    assert not (tmp_path / "data").exists() or list((tmp_path / "data").iterdir()) == []


def test_a_repository_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(GradlensError, match=r"must be able to read .*missing"):
        store.fetch_from_hub("mnist", str(tmp_path / "missing"))


def test_without_datasets_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(GradlensError, match=r"pip install -e '\.\[hub\]'"):
        store.fetch_from_hub("mnist", "owner/name")
