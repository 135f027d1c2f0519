"""CoNLL-U is read as the format says, and what breaks it is said with its line."""

import gzip
from pathlib import Path

import pytest

from gradlens.errors import GradlensError
from gradlens.lab.tasks.parsing.conllu import Sentence, read_conllu, split_file
from tests.lab.tasks import tiny_treebank


def word(number: object, form: str, head: object, relation: str = "dep") -> str:
    return f"{number}\t{form}\t_\tX\tY\t_\t{head}\t{relation}\t_\t_"


GOOD = [
    "# text = vámonos al mar", word("1-2", "vámonos", "_", "_"), word(1, "vamos", 0, "root"), word(2, "nos", 1),
    word("2.1", "we", "_", "_"), word("3-4", "al", "_", "_"), word(3, "a", 5, "case"), word(4, "el", 5),
    word(5, "mar", 1, "obl:arg"), "",
]  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def write_and_read(lines: list[str]) -> list[Sentence]:
        path = tmp_path / "some.conllu"
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return read_conllu(path)

    return write_and_read


def test_words_are_kept_without_multiword_tokens_and_empty_nodes(read):
    (sentence,) = read(GOOD)
    assert sentence.forms == ("vamos", "nos", "a", "el", "mar")
    assert sentence.heads == (0, 1, 5, 5, 1)
    assert sentence.relations == ("root", "dep", "case", "dep", "obl:arg")
    assert (sentence.upos, sentence.xpos) == (("X",) * 5, ("Y",) * 5)


def test_what_is_written_is_read_back_plain_packed_and_with_the_line_ends_of_windows(tmp_path):
    written = [*tiny_treebank.sentences(20), tiny_treebank.CROSSING]
    text = tiny_treebank.conllu(written).encode()
    for name, content in {
        "plain.conllu": text,
        "packed.conllu.gz": gzip.compress(text),
        "windows.conllu": text.replace(b"\n", b"\r\n"),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert read_conllu(tmp_path / name) == written


def test_an_empty_node_may_come_before_the_first_word_and_between_those_of_a_token(read):
    lines = [word("0.1", "e", "_"), word("1-2", "ab", "_"), word(1, "a", 0), word("1.1", "e", "_"), word(2, "b", 1), ""]
    assert read(lines)[0].forms == ("a", "b")


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (3, word(1, "vamos", 0, "root") + "\t_", "line 3: expected 10 columns with tabs between, got 11"),
        (4, "2 nos 1", "line 4: expected 10 columns with tabs between, got 1: '2 nos 1'"),
        (4, word(3, "nos", 1), "line 4: expected the number of the next word, 2, got '3'"),
        (4, word("two", "nos", 1), "line 4: expected the number of the next word, 2, got 'two'"),
        (5, word("3.1", "we", "_"), "line 5: expected the number of the next word, 3, got '3.1'"),
        (4, word(2, "", 1), "line 4: expected something in the column FORM, got nothing"),
        (4, word(2, "nos", "_"), "line 4: expected a number in the column HEAD, got '_'"),
        (4, word(2, "nos", "-1"), "line 4: expected a number in the column HEAD, got '-1'"),
        (4, word(2, "nos", "²"), "line 4: expected a number in the column HEAD, got '²'"),
        (4, word(2, "nos", 6), "line 4: expected a HEAD within the sentence's 5 words, got 6"),
        (4, word(2, "nos", 1, "_"), "line 4: expected a relation in the column DEPREL, got '_'"),
        (3, word(1, "vamos", 5, "root"), "line 3: expected a sentence with one word of HEAD 0, got none"),
        (9, word(5, "mar", 0), "line 9: expected one word of HEAD 0 in a sentence, got another on line 3"),
        (9, word(5, "mar", 3), "line 7: expected a tree, got a cycle of the words 3, 5"),
        (9, word(5, "mar", 5), "line 9: expected a tree, got a cycle of the words 5"),
        (6, word("4-5", "al", "_"), "line 6: expected a multiword token that starts at the next word, 3, got '4-5'"),
        (6, word("3-2", "al", "_"), "line 6: expected a multiword token that starts at the next word, 3, got '3-2'"),
        (2, word("1-3", "al", "_"), "line 6: expected a multiword token that starts at the next word, 3, got '3-4'"),
        (6, word("3-6", "al", "_"), "line 9: expected word 6 of a multiword token, got the sentence's end at 5"),
        (10, "# it ends here", "line 11: expected an empty line after the last sentence, got the end of the file"),
    ],
)  # fmt: skip
def test_a_broken_file_is_an_error_that_names_the_line(read, line, text, message):
    broken = [*GOOD[: line - 1], text, *GOOD[line:]]
    with pytest.raises(GradlensError) as error:
        read(broken)
    assert f"some.conllu, {message}" in str(error.value)


def test_lines_are_counted_through_the_whole_file(read):
    with pytest.raises(GradlensError, match=r"line 14: .* got a cycle of the words 2, 3"):
        read([*GOOD, "# second", "", word(1, "a", 0), word(2, "b", 3), word(3, "c", 2), ""])


def test_a_sentence_of_nothing_but_an_empty_node_has_no_words(read):
    with pytest.raises(GradlensError, match="line 1: expected a sentence with words, got none"):
        read([word("0.1", "e", "_"), ""])


@pytest.mark.parametrize("lines", [[], ["# only a comment", ""]])
def test_an_empty_file_is_an_error(read, lines):
    with pytest.raises(GradlensError, match="must hold sentences in CoNLL-U; it holds none"):
        read(lines)


def test_half_a_packed_file_and_other_bytes_are_errors(tmp_path):
    whole = gzip.compress(tiny_treebank.conllu(tiny_treebank.sentences(50)).encode())
    for name, content in {
        "half.conllu.gz": whole[: len(whole) // 2],
        "not.conllu.gz": b"plain",
        "latin.conllu": word(1, "á", 0).encode("latin-1") + b"\n\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GradlensError, match=f"{name} must be a CoNLL-U file in UTF-8"):
            read_conllu(tmp_path / name)
    with pytest.raises(GradlensError, match="cannot be read"):
        read_conllu(tmp_path / "missing.conllu")


def test_a_split_is_found_by_its_published_name_and_must_be_there_once(tmp_path: Path):
    folder = tiny_treebank.write(tmp_path)
    assert split_file(folder, "train").name == "xx_tiny-ud-train.conllu"
    assert split_file(folder, "dev").name == "xx_tiny-ud-dev.conllu.gz"
    with pytest.raises(GradlensError, match=r"one file \*-test.conllu \(or .conllu.gz\); .* has none"):
        split_file(folder, "test")
    (folder / "yy_other-ud-dev.conllu").touch()
    with pytest.raises(GradlensError, match=r"has yy_other-ud-dev\.conllu and xx_tiny-ud-dev\.conllu\.gz\. Keep one"):
        split_file(folder, "dev")
