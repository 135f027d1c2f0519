"""How the documentation is built: ``make docs``. The pages of findings and columns are made of the package itself."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

project = "gradlens"
extensions = ["myst_parser", "sphinx_gallery.gen_gallery"]
html_theme = "furo"
exclude_patterns = [
    "templates",
    "build",
    "gallery/*.py",
    "gallery/GALLERY_HEADER.rst",
    "gallery/runs",
    "sg_execution_times.rst",
]
myst_enable_extensions = ["colon_fence"]
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "gallery/built",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "abort_on_example_error": True,
    "image_scrapers": (),
}


def findings() -> Iterator[str]:
    """Yield the page of findings: each code with what it means, question by question."""
    from gradlens.analysis.discover import discover, papers

    yield "# Every finding\n\nAs `gradlens explain CODE` prints it."
    for question in [*discover(), *(question for paper in papers().values() for question in paper)]:
        if question.codes:
            yield f"## {question.title}\n\n{question.question}"
            for code, meaning in sorted(question.codes.items()):
                yield f"({code})=\n\n**{code}** {' '.join(meaning.split())}"


def columns() -> Iterator[str]:
    """Yield the page of columns: those that ``gradlens.load`` gives, table by table."""
    from gradlens.recording.schema import PUBLIC

    yield "# Every column\n\nThe tables of a recording, as `gradlens.load` gives them."
    for table, held in PUBLIC.items():
        rows = [f"| `{column.name}` | {column.unit} | {_cell(column.meaning)} |" for column in held]
        yield f"## {table}\n\n" + "\n".join(["| column | unit | meaning |", "|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def setup(app: Any) -> None:
    """Have pages find the published reports where this build has them."""

    def read(app: Any, name: str, source: list[str]) -> None:
        source[0] = source[0].replace("](../reports/", "](generated/reports/")

    app.connect("source-read", read)


# The examples record runs, which are never overwritten.
shutil.rmtree(DOCS / "gallery" / "runs", ignore_errors=True)
shutil.copytree(
    DOCS.parent / "reports", DOCS / "generated" / "reports", ignore=lambda *_: {"build", "tables"}, dirs_exist_ok=True
)
for name, page in (("findings", findings()), ("columns", columns())):
    path = DOCS / "generated" / f"{name}.md"
    path.write_text("\n\n".join(page) + "\n", "utf-8")
