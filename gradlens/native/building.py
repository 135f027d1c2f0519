"""Compiling the core, and finding it. Imports nothing but the standard library: the package's build runs this file.

``python gradlens/native/building.py`` compiles the core beside its source (``make native``). The file is named by the
hash of its source, so that one which was compiled from another source is never taken.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("core.c")
#: Set to 0, torch's operations measure.
SWITCH = "GRADLENS_NATIVE"
#: Comparisons may be made for entries that are not asked for, and no error number is kept: both change no result.
_OPTIONS = ("-std=c11", "-O3", "-fno-trapping-math", "-fno-math-errno", "-fopenmp-simd", "-shared", "-fPIC")


def compiled() -> Path:
    """Return where the core lies that was compiled from the source as it is, if it was."""
    source = b"".join(SOURCE.with_name(name).read_bytes() for name in ("numbers.h", SOURCE.name))
    return SOURCE.with_name(f"core-{hashlib.sha256(source).hexdigest()[:16]}.so")


def measures() -> str:
    """Return what measures tensors in the host's memory: "native" or "torch"."""
    return "native" if os.environ.get(SWITCH) != "0" and compiled().exists() else "torch"


def build() -> str:
    """Compile the core with ``$CC``, or ``cc``, unless that was done; return why not, empty where it is there."""
    target = compiled()
    if target.exists():
        return ""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if not compiler or shutil.which(compiler[0]) is None:
        return f"no C compiler ({' '.join(compiler)})"
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        try:
            subprocess.run(
                [*compiler, *_OPTIONS, str(SOURCE), "-o", str(made), "-lm"], check=True, capture_output=True, text=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            return f"{' '.join(compiler)} failed ({said[0] if said else error})"
        for old in target.parent.glob("core-*.so"):
            old.unlink()
        made.replace(target)
    return ""


if __name__ == "__main__":
    print(build() or compiled())
