#!/usr/bin/env bash
# filelock 4.3.1: a FileLock is per thread by default. In another thread than the one that took it, is_locked is False and
# release(force=True) does nothing, without an error; the lock stays taken.
#
# A program that takes a lock in one thread and gives it back in another (a callback, a finalizer) leaves it taken until
# the process ends. Seen:
#   default              other thread: is_locked False; after release(force=True) there: taken
#   thread_local=False   other thread: is_locked True; after release(force=True) there: free
# What to do: FileLock(path, thread_local=False).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet filelock==4.3.1
"$work/env/bin/python" - "$work" <<'PY'
import importlib.metadata
import subprocess
import sys
import threading

from filelock import FileLock

assert importlib.metadata.version("filelock") == "4.3.1"
TRY = """
import sys
from filelock import FileLock, Timeout
try:
    FileLock(sys.argv[1]).acquire(timeout=0)
    print("free")
except Timeout:
    print("taken")
"""


def seen(name, **options):
    path = f"{sys.argv[1]}/{name}"
    lock = FileLock(path, **options)
    lock.acquire()
    told = []

    def elsewhere():
        told.append(lock.is_locked)
        lock.release(force=True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    # Another process asks: in this one two locks on one file may know of each other.
    state = subprocess.run([sys.executable, "-c", TRY, path], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{name:20} other thread: is_locked {told[0]}; after release(force=True) there: {state}")
    return told[0], state


assert seen("default") == (False, "taken")
assert seen("thread_local=False", thread_local=False) == (True, "free")
PY
