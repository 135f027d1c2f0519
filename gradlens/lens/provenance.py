"""Where a recording comes from: versions, command, state of the code, machine."""

import functools
import os
import platform
import subprocess
import sys
from typing import Any

import torch

import gradlens


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Return commit and cleanliness of the working directory's repository; None outside of one."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(git("status", "--porcelain"))} if commit else None


def provenance() -> dict[str, Any]:
    """Return the facts that go into every manifest."""
    return {
        "versions": {
            "gradlens": gradlens.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        # The program's name, not its path: a manifest may be published.
        "argv": [os.path.basename(sys.argv[0]), *sys.argv[1:]] if sys.argv else [],
        "git": git_state(),
        "cpu": platform.machine(),
        "threads": torch.get_num_threads(),
    }
