"""Movie-review sentences with a score, from the source archive of vaderSentiment; or TSV files from a folder.

The wheel lacks them. The file is that of Hutto & Gilbert 2014: id, mean score of 20 people in [-4, 4], sentence.
"""

import io
import tarfile
from pathlib import Path

from gradlens.errors import GradlensError
from gradlens.lab.tasks.sources.clients import pip_download, sha256_of
from gradlens.lab.tasks.sources.source import Brought, Source

VERSION = "3.3.2"
SCORES = "movieReviewSnippets_GroundTruth.txt"
_INNER = "hutto_ICWSM_2014"


def bring(folder: Path) -> Brought:
    """Take the table out of the archive in the archive."""
    sdist = pip_download(f"vaderSentiment=={VERSION}", folder, sdist=True)
    brought = Brought(VERSION, {sdist.name: sha256_of(sdist)})
    try:
        inner = _member(sdist.read_bytes(), f"vaderSentiment-{VERSION}/additional_resources/{_INNER}.tar.gz")
        (folder / SCORES).write_bytes(_member(inner, f"{_INNER}/{SCORES}"))
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise GradlensError(f"{sdist.name} must be an archive that holds {SCORES}: {error}. Fetch it again.") from error
    sdist.unlink()
    return brought


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        file = tar.extractfile(name)
        if file is None:
            raise KeyError(name)
        return file.read()


SOURCE = Source(
    name="movie-reviews",
    what="10,605 sentences of movie reviews with a mean score",
    licence="MIT (vaderSentiment); load, do not ship",
    size="1.4 MB",
    channel="pip",
    package=f"vaderSentiment=={VERSION}, source archive",
    patterns=(SCORES, "*.tsv"),
    needs="train.tsv, dev.tsv (or valid.tsv) and test.tsv, each line a label, a tab and a sentence",
    bring=bring,
    sha256={SCORES: "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"},
)
