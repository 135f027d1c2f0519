import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gradlens.errors import GradlensError
from gradlens.reporting.writing import write_whole


def test_a_file_is_written_with_the_folders_above_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.bin"
    write_whole(path, b"content")
    assert path.read_bytes() == b"content"
    assert [p.name for p in path.parent.iterdir()] == ["c.bin"]


def test_the_file_has_the_mode_that_open_would_give(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_full_disk_loses_nothing_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GradlensError, match=r"No space left on device.*Free some space") as caught:
        write_whole(path, b"new")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


WRITE = """
import resource, sys
from pathlib import Path
from gradlens.errors import GradlensError
from gradlens.reporting.writing import write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(Path(sys.argv[1]), b"x" * 100_000)
except GradlensError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
def test_a_write_that_the_system_cuts_short_leaves_no_half_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path / "a")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("refused:")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(GradlensError, match="cannot be written"):
        write_whole(tmp_path / "file" / "a", b"x")


def test_a_folder_in_the_files_place_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(GradlensError):
        write_whole(tmp_path / "a", b"x")
    assert (tmp_path / "a").is_dir()
    assert len(list(tmp_path.iterdir())) == 1
