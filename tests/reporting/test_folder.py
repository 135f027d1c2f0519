from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymupdf
import pytest

from gradlens.analysis import Comparison
from gradlens.analysis.summary import summary
from gradlens.reporting import findings_text, summary_text, write_folder
from gradlens.reporting.record import recorded


def test_the_folder_holds_the_pdf_and_all_that_is_attached_to_it(comparison: Comparison, tmp_path: Path) -> None:
    written = write_folder(comparison, tmp_path / "new", "a.pdf", command="gradlens compare a b")
    assert written == tmp_path / "new" / "a.pdf"
    assert {path.name for path in written.parent.iterdir()} == {"a.pdf", "findings.json", "tables"}
    attached = pymupdf.open(written)
    assert attached.embfile_get("findings.json") == (written.parent / "findings.json").read_bytes()
    for name in comparison.tables:
        assert attached.embfile_get(f"{name}.csv") == (written.parent / "tables" / f"{name}.csv").read_bytes()


def test_what_a_command_writes_and_prints_is_gathered_from_the_recordings_once(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls[function.__name__] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr("gradlens.analysis.comparison.summary", counted(summary))
    monkeypatch.setattr("gradlens.reporting.record.recorded", counted(recorded))
    write_folder(comparison, tmp_path, "a.pdf")
    summary_text(comparison)
    findings_text(comparison)
    assert calls == {"summary": 1, "recorded": 1}
