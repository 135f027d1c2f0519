import pytest

from gradlens.errors import GradlensError
from gradlens.lab.tasks.bitext import read_aligned, read_bitext, sentences, split_of, why_left_out
from gradlens.lab.tasks.sources import located
from tests.lab.tasks.data_sets import help_pages

EN_DE = ("en", "de")


@pytest.fixture(scope="module")
def real():
    try:
        return read_bitext(located("libreoffice-help"), *EN_DE)
    except GradlensError as absent:
        pytest.skip(str(absent))


def aligned(folder, **files: str):
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, "utf-8")
    return folder


GOOD = {"train_en": "a b\nc d\n", "train_de": "A B\nC D\n", "valid_en": "e\n", "valid_de": "E\n"}


def test_pairs_are_aligned_by_page_and_paragraph(tmp_path):
    page = "swriter/{}.html".format
    names = [page(i) for i in range(60)]
    english = {p: (f"About page {p}", f"Page {p} opens the file.", f"Then save page {p}.") for p in names}
    german = {p: (f"Über die Seite {p}", f"Seite {p} öffnet die Datei.", f"Dann speichern Sie {p}.") for p in names}
    help_pages(tmp_path, "en-US", english)
    help_pages(tmp_path, "de", german)
    data = read_bitext(tmp_path, *EN_DE)
    assert set(data.pages["train"]) | set(data.pages["valid"]) == set(names)
    assert not set(data.pages["train"]) & set(data.pages["valid"])
    assert data.pages["valid"] == sorted(p for p in names if split_of(p) == "valid") != []
    assert ("Page swriter/3.html opens the file.", "Seite swriter/3.html öffnet die Datei.") in data.splits[
        split_of(page(3))
    ]
    assert sum(map(len, data.splits.values())) == 180
    assert read_bitext(tmp_path, "de", "en").splits["train"][0] == data.splits["train"][0][::-1]


def test_paragraphs_are_split_where_both_sides_have_as_many_sentences():
    assert sentences("One. Two? Three", "Eins. Zwei? Drei") == [("One.", "Eins."), ("Two?", "Zwei?"), ("Three", "Drei")]
    assert sentences("One. Two.", "Eins und zwei.") == [("One. Two.", "Eins und zwei.")]
    assert sentences("E.g. this one.", "Z.B. dieser hier.") == [("E.g. this one.", "Z.B. dieser hier.")]


@pytest.mark.parametrize(
    ("pair", "languages", "reason"),
    [
        (("Open the file.", "Öffnen Sie sie."), EN_DE, None),
        (("Open the file.", "Open the file."), EN_DE, "not translated"),
        (("Open it.", "Öffnen Sie sie."), EN_DE, "below 3 words"),
        (("word " * 61, "Wort " * 60), EN_DE, "above 60 words"),
        (("a b c d e f g", "a b c"), EN_DE, "one side more than 2 times as long"),
        (("a b c d e f", "a b c"), EN_DE, None),
        (("Open the file.", "Open all files."), ("en", "vi"), "no Vietnamese letter"),
        (("Open the file.", "Mở tập tin."), ("en", "vi"), None),
    ],
)
def test_each_filter_leaves_out_what_it_names(pair, languages, reason):
    assert why_left_out(pair, languages) == reason


def test_aligned_text_keeps_its_splits_and_loses_what_would_leak(tmp_path):
    files = {**GOOD, "train_en": "a b\nE\nx y\na b\n\n", "train_de": "A B\nanders\ne\nA B\nleer\n"}
    data = read_bitext(aligned(tmp_path, **files), *EN_DE)
    assert data.splits == {"train": [("a b", "A B")], "valid": [("e", "E")]}
    assert data.left_out == {"repeated": 1, "from training, for a side is held out": 2}


def test_a_table_is_as_good_as_two_files(tmp_path):
    aligned(tmp_path, train_tsv="a b\tA B\nc d\tC D\n", test_tsv="e\tE\n")
    assert read_bitext(tmp_path, *EN_DE).splits == {"train": [("a b", "A B"), ("c d", "C D")], "valid": [("e", "E")]}
    aligned(tmp_path, train_tsv="a b\tA B\nc d C D\n")
    with pytest.raises(GradlensError, match=r"train\.tsv, line 2, must be .* it has 1 fields"):
        read_bitext(tmp_path, *EN_DE)


def test_unaligned_files_are_refused_with_both_counts(tmp_path):
    aligned(tmp_path, **{**GOOD, "train_de": "A B\nC D\nE F\n"})
    with pytest.raises(GradlensError, match=r"train\.en has 2 and .*train\.de has 3"):
        read_bitext(tmp_path, *EN_DE)


def test_only_an_end_of_line_ends_a_line(tmp_path):
    aligned(tmp_path, train_en="a\u2028b\r\nc\n", train_de="A\nC\x85D")
    assert read_aligned(tmp_path, "train", *EN_DE) == [("a\u2028b", "A"), ("c", "C\x85D")]


@pytest.mark.parametrize("missing", ["train_de", "valid_en", "valid_de"])
def test_a_missing_file_is_named(tmp_path, missing):
    aligned(tmp_path, **{name: text for name, text in GOOD.items() if name != missing})
    with pytest.raises(GradlensError, match="Aligned text needs"):
        read_bitext(tmp_path, *EN_DE)


@pytest.mark.parametrize(
    ("files", "split"), [({"valid_en": "\n", "valid_de": "\n"}, "valid"), ({"train_en": "e\ne\n"}, "train")]
)
def test_an_empty_split_is_named(tmp_path, files, split):
    with pytest.raises(GradlensError, match=f"none for {split}"):
        read_bitext(aligned(tmp_path, **{**GOOD, **files}), *EN_DE)


def test_a_language_that_the_help_lacks_is_refused(tmp_path):
    with pytest.raises(GradlensError, match="got 'fr'"):
        read_bitext(tmp_path, "en", "fr")


def test_the_real_help_leaks_nothing(real):
    assert len(real.splits["train"]) > 25_000
    assert len(real.splits["valid"]) > 1_000
    assert not set(real.pages["train"]) & set(real.pages["valid"])
    for side in (0, 1):
        train, valid = ({pair[side].lower() for pair in real.splits[split]} for split in ("train", "valid"))
        assert not train & valid
