"""Who writes a folder: one process a rank, until it gives the lock back or ends, however it ends."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from gradlens.errors import RecordingError
from gradlens.recording.locks import being_written, claim, release


def started(script: str, *arguments: object) -> subprocess.Popen:
    """Start a Python process, and return it when it has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


HOLD = """
    import os, sys, time
    from pathlib import Path
    from gradlens.recording.locks import claim
    lock = claim(Path(sys.argv[1]))
    child = os.fork() if sys.argv[2] == "fork" else 1
    if child:
        print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("child", ["no child", "fork"])
def test_a_killed_process_holds_no_lock_also_while_a_child_of_its_lives(tmp_path, child):
    process = started(HOLD, tmp_path, child)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        left = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        assert being_written(tmp_path)
        with pytest.raises(RecordingError, match="another one is writing"):
            claim(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not being_written(tmp_path)
        release(claim(tmp_path))
    finally:
        process.kill()
        process.wait()
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def test_a_lock_is_taken_once_in_a_process_too(tmp_path):
    lock = claim(tmp_path)
    with pytest.raises(RecordingError, match="another one is writing"):
        claim(tmp_path)
    release(lock)
    release(lock)
    release(claim(tmp_path))


def test_another_thread_may_give_a_lock_back(tmp_path):
    lock = claim(tmp_path)
    thread = threading.Thread(target=release, args=(lock,))
    thread.start()
    thread.join()
    assert not being_written(tmp_path)


LOOK = """
    import sys
    from pathlib import Path
    from gradlens.recording.locks import being_written
    print("ready", flush=True)
    while True:
        being_written(Path(sys.argv[1]))
"""


def test_who_looks_whether_a_folder_is_written_is_in_nobodys_way(tmp_path):
    release(claim(tmp_path))
    process = started(LOOK, tmp_path)
    try:
        for _ in range(100):
            lock = claim(tmp_path)
            assert being_written(tmp_path)
            release(lock)
    finally:
        process.kill()
        process.wait()


def test_looking_writes_nothing_and_takes_no_lock_away(tmp_path):
    lock = claim(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for _ in range(3):
        assert being_written(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    release(lock)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"], "it stays for the next one"


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_lock_is_not_taken_for_one(tmp_path, kind):
    place = tmp_path / "lock"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero")
    begun = time.monotonic()
    assert not being_written(tmp_path)
    assert time.monotonic() - begun < 5, "a pipe is not waited for"


def test_a_disk_without_locks_is_named(tmp_path, monkeypatch):
    import fcntl

    def without(*asked: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", without)
    with pytest.raises(RecordingError, match="must lie where files can be locked"):
        claim(tmp_path)
