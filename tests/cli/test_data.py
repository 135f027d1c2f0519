"""The commands that show and fetch real data."""

from pathlib import Path

import pytest

from gradlens.lab.tasks.sources import SOURCES
from tests.cli.conftest import read_json
from tests.cli.test_main import modules_after


@pytest.fixture(autouse=True)
def _empty_store(folder, monkeypatch):
    monkeypatch.setenv("GRADLENS_DATA", str(folder / "store"))


@pytest.fixture
def reviews(folder) -> Path:
    path = folder / "sst"
    path.mkdir()
    (path / "train.tsv").write_text("1\tgood one\n0\tbad one\n" * 3)
    (path / "dev.tsv").write_text("1\tbetter\n0\tworse\n")
    return path


def test_list_tells_of_every_data_set_what_it_is_and_the_command_that_brings_it(gradlens):
    text = gradlens("data", "list").stdout
    for name in SOURCES:
        assert SOURCES[name].what in text
        assert SOURCES[name].command in text
        assert SOURCES[name].licence in text
    rows = read_json(gradlens("data", "list", "--json"))["data"]
    assert [row["name"] for row in rows] == list(SOURCES)
    assert not any(row["present"] for row in rows)


def test_a_folder_is_linked_and_then_listed(gradlens, reviews):
    assert str(reviews) in gradlens("data", "fetch", "movie-reviews", "--from", "sst").stdout
    rows = {row["name"]: row for row in read_json(gradlens("data", "list", "--json"))["data"]}
    assert rows["movie-reviews"]["present"]
    assert rows["movie-reviews"]["folder"] == str(reviews)
    assert rows["movie-reviews"]["files"] == 2
    assert not rows["mnist"]["present"]


def test_fetch_speaks_json(gradlens, reviews):
    row = read_json(gradlens("data", "fetch", "movie-reviews", "--from", "sst", "--json"))
    assert (row["name"], row["present"], row["channel"]) == ("movie-reviews", True, "folder")


def test_damage_is_listed(gradlens, reviews):
    gradlens("data", "fetch", "movie-reviews", "--from", "sst")
    (reviews / "dev.tsv").write_text("1\tbet")
    assert "damaged" in gradlens("data", "list").stdout


def test_what_was_fetched_can_be_trained_on(gradlens, reviews):
    size = [
        "--layers",
        1,
        "--width",
        8,
        "--heads",
        2,
        "--batch-size",
        2,
        "--length",
        8,
        "--steps",
        2,
        "--device",
        "cpu",
    ]
    before = gradlens("train", "pre-ln", "--task", "sentences", *size)
    assert before.exit_code == 2
    assert "gradlens data fetch movie-reviews" in before.stderr
    gradlens("data", "fetch", "movie-reviews", "--from", "sst")
    assert gradlens("train", "pre-ln", "--task", "sentences", *size).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fetch", "minst"], "mnist"),
        (["fetsch", "mnist"], "fetch"),
        (["fetch", "ud-ewt"], "--from FOLDER"),
        (["fetch", "ud-ewt", "--from", "missing"], "missing is none"),
        (["fetch", "ud-ewt", "--from", "."], "must hold"),
        (["fetch", "ud-ewt", "--from", ".", "--again"], "--again"),
        (["fetch", "mnist", "--hub", "owner/name", "--from", "."], "Give one of them"),
        (["fetch", "mnist", "--config", "plain_text"], "--hub REPOSITORY"),
        (["fetch"], "NAME"),
    ],
)
def test_what_cannot_be_fetched_says_why(gradlens, arguments, said):
    result = gradlens("data", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [["data", "list"], ["data", "--help"], ["data", "fetch", "--help"]])
def test_data_is_listed_without_torch(arguments):
    assert not modules_after(*arguments) & {"torch", "scipy.stats", "matplotlib.pyplot"}
