"""``write_then_rename``: a file is the old one or the new one, whatever happens."""

import os
from pathlib import Path

import pytest

from gradlens.recording.whole import write_then_rename


def test_the_disk_has_the_new_file_before_it_takes_the_old_ones_place(tmp_path, monkeypatch):
    path, seen, sync = tmp_path / "a", [], os.fsync
    path.write_bytes(b"old")

    def synced(handle):
        sync(handle)
        seen.append((path.read_bytes(), (tmp_path / "a.tmp").read_bytes()))

    monkeypatch.setattr(os, "fsync", synced)
    write_then_rename(path, lambda file: file.write(b"new"))
    assert (seen, path.read_bytes()) == ([(b"old", b"new")], b"new")


@pytest.mark.parametrize("error", [OSError, RuntimeError, KeyboardInterrupt])
def test_what_is_raised_while_it_is_written_leaves_the_old_one_alone(tmp_path, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"ne")
        raise error

    with pytest.raises(error):
        write_then_rename(path, half)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a": b"old"}


def test_what_a_killed_writer_left_is_replaced_and_a_link_in_its_place_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"theirs")
    Path(tmp_path / "a.tmp").symlink_to(elsewhere)
    write_then_rename(tmp_path / "a", lambda file: file.write(b"new"))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a": b"new", "elsewhere": b"theirs"}
