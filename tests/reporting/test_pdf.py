import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymupdf
import pytest
import typst

import gradlens
from analyses import ANALYSES
from gradlens.analysis import Analysis, Comparison, compare
from gradlens.errors import GradlensError, NothingFoundError
from gradlens.recording import Recording
from gradlens.reporting.pdf import report, typeset
from tests.reporting.conftest import judge_losses, loss_table, make_analysis, make_recording, plot_losses

COMMAND = "gradlens compare pre-ln post-ln --seeds 5"


def read(pdf: bytes) -> pymupdf.Document:
    return pymupdf.open(stream=pdf, filetype="pdf")


def words(text: str) -> str:
    """Return the text with all white space as single blanks: lines break where they will."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def document() -> pymupdf.Document:
    init = [make_recording(v, kind="init", variant=v, steps=5) for v in ("pre-ln", "post-ln")]
    runs = [make_recording(f"{v}, no warm-up", variant=v) for v in ("pre-ln", "post-ln")]
    return read(typeset(compare([*init, *runs], [make_analysis(reference="")]), COMMAND))


def test_the_first_page_alone_tells_the_story(document: pymupdf.Document) -> None:
    page = words(document[0].get_text())
    for part in ("pre-ln and post-ln", "4 blocks, width 64 · 313 k weights", "5 seeds at initialization"):
        assert part in page
    assert "out loss is lowest for pre-ln, no warm-up" in page  # lines break at hyphens, too
    told = "post-ln, no warm-up ends above the loss limit, at blocks.0.attention_norm (XX101, "
    assert told in page  # the verdict, in words
    assert "Of 2 checks, 1 failed and 1 passed." in page
    for part in ("✗", "fail", "1 of 2", "The loss at the end", "XX101", "last / first", "60 steps"):
        assert part in page


def test_every_check_on_the_first_page_leads_to_its_section(document: pymupdf.Document) -> None:
    targets = [link["page"] for link in document[0].get_links()]
    assert set(targets) == {1}
    assert len(targets) >= 2  # the claim and the code


def test_a_section_holds_question_figure_numbers_causes_and_remedies(document: pymupdf.Document) -> None:
    page = words(document[1].get_text())
    for part in (
        "Does every variant train?",
        "Figure 1: The training loss at each step",
        "[3.10, 3.20]",
        "2.8 nats per byte",
    ):
        assert part in page
    for part in ("What may cause it", "few steps (innocent)", "What to try", "warm the learning rate up"):
        assert part in page
    assert "The numbers behind it, 120 rows, are attached to this file as losses.csv." in page
    assert "Expected from: the same model with warm-up." in page


def test_text_inside_figures_is_searchable(document: pymupdf.Document) -> None:
    assert document[1].search_for("post-ln, no warm-up", clip=document[1].rect)
    assert "loss (nats per byte)" in words(document[1].get_text())


def test_the_last_pages_tell_how_to_make_the_report_again(document: pymupdf.Document) -> None:
    text = words(" ".join(page.get_text() for page in document))
    for part in (COMMAND, "torch 2.13.0", "recentering share of the energy", "4f" * 32, "8 of 8", "typst"):
        assert part in text


def test_the_document_is_tagged_titled_and_has_an_outline(document: pymupdf.Document) -> None:
    catalog = document.xref_object(document.pdf_catalog(), compressed=True)
    for key in ("/StructTreeRoot", "/MarkInfo<</Marked true", "/Lang(en", "/DisplayDocTitle true"):
        assert key in catalog.replace("MarkInfo <<", "MarkInfo<<")
    assert document.metadata["title"] == "pre-ln and post-ln: What normalization does to their gradients"
    titles = [title for _, title, _ in document.get_toc()]
    assert titles[:3] == ["Verdict", "Checks", "1 The loss while training"]
    assert any("What was recorded" in title for title in titles)


def test_figures_have_an_alternative_text(document: pymupdf.Document) -> None:
    objects = (document.xref_object(i, compressed=True) for i in range(1, document.xref_length()))
    alts = [o for o in objects if "/Alt" in o]
    assert alts
    assert any("The training loss at each step" in o for o in alts)


def test_tables_and_findings_are_attached(document: pymupdf.Document) -> None:
    assert sorted(document.embfile_names()) == ["findings.json", "losses.csv"]
    rows = document.embfile_get("losses.csv").decode().splitlines()
    assert rows[0] == "panel,label,x,value,unit"
    assert len(rows) == 121
    attached = json.loads(document.embfile_get("findings.json"))
    assert [f["status"] for f in attached["findings"]] == ["pass", "fail"]


def test_pages_are_numbered(document: pymupdf.Document) -> None:
    for index, page in enumerate(document, 1):
        assert f"{index} / {len(document)}" in page.get_text()


MAKE = """
import hashlib, sys
sys.path.insert(0, {tests!r})
from tests.reporting.conftest import make_analysis, make_recording
from gradlens.analysis import compare
from gradlens.reporting.pdf import typeset
made = compare([make_recording(), make_recording("post-ln, warm-up", variant="post-ln")], [make_analysis()])
first, second = typeset(made, "x"), typeset(made, "x")
assert first == second
print(hashlib.sha256(first).hexdigest())
"""


def test_the_same_input_gives_the_same_bytes_in_every_process() -> None:
    digests = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": f"UTC{seed}"}
        script = MAKE.format(tests=str(Path(__file__).parents[2]))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_other_numbers_give_other_bytes() -> None:
    one, other = (typeset(compare([make_recording(steps=n)], [make_analysis()])) for n in (20, 21))
    assert one != other


def test_the_template_compiles_without_a_warning(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    def compile_and_listen(*args: Any, **options: Any) -> bytes:
        pdf, warned = typst.compile_with_warnings(*args, **options)
        said.extend(warning.message for warning in warned)
        return bytes(pdf)

    monkeypatch.setattr(typst, "compile", compile_and_listen)
    assert typeset(comparison)
    assert said == []


def test_importing_the_report_imports_neither_torch_nor_pyplot() -> None:
    unwanted = ("torch", "matplotlib.pyplot", "scipy")
    script = f"import sys, gradlens.reporting; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def overlapping(page: pymupdf.Page) -> list[tuple[str, str]]:
    """Return the pairs of words of which one covers a quarter or more of the other."""
    found = page.get_text("words")
    boxes = [(pymupdf.Rect(w[:4]), w[4]) for w in found]
    return [
        (a, b)
        for i, (one, a) in enumerate(boxes)
        for other, b in boxes[i + 1 :]
        if abs(one & other) > 0.25 * min(abs(one), abs(other))
    ]


def no_findings(**changes: Any) -> Analysis:
    return make_analysis(judge=lambda table: [], **changes)


LONG = "my_laboratory.experiments.transformers_with_very_long_names:build_a_model_of_the_second_generation"
MISSED = {
    "norms": ["a", "b"], "fired": ["a"], "silent": ["b"], "strangers": [f"blocks.{i}.my_own_norm" for i in range(9)],
    "functional": {}, "calls": {"most": 1, "sites": {}}, "gradient": "Parameter gradients: at the end of backward.",
    "setting": {"every": 5, "micro_batches": 4, "loss_scale": True, "autocast": "float16", "world": 1},
    "problems": [
        "1 of 2 norms never ran as modules: b. They may be unused.",
        "Not recorded, for their behaviour is not understood: blocks.0.my_own_norm, blocks.1.my_own_norm, "
        "blocks.2.my_own_norm and 6 more. Name their axes with gradlens.register_norm.",
    ],
}  # fmt: skip
SOUND = MISSED | {"strangers": [], "silent": [], "problems": []}
SEVERAL = {
    "one recording": ([make_recording()], [make_analysis()]),
    "six recordings": (
        [make_recording(f"post-ln, run {i}, no warm-up", variant=f"v{i}") for i in range(6)],
        [make_analysis()],
    ),
    "long labels": (
        [make_recording(f"{LONG}_{i}, no warm-up", variant=f"{LONG}_{i}") for i in range(5)],
        [make_analysis()],
    ),
    "no finding": ([make_recording()], [no_findings()]),
    "no analysis": ([make_recording()], []),
    "nothing to draw": ([make_recording(kind="init")], [make_analysis()]),
    "an empty recording": ([Recording.from_tables({"label": "e", "kind": "attached"})], [make_analysis()]),
    "every sign": ([make_recording("日本語 ∂L/∂γ 🙂 שלום #let x = [*_`$<a>\\]@b")], [make_analysis()]),
    "many findings": (
        [make_recording(f"post-ln {i}") for i in range(4)],
        [make_analysis(f"a{i}", judge=lambda t: judge_losses(t) * 4) for i in range(3)],
    ),
    "a figure higher than the page": ([make_recording()], [make_analysis(size=(6.7, 20.0))]),
    "audits": (
        [make_recording(f"{LONG}_{i}", variant=LONG, audit=audit) for i, audit in enumerate((MISSED, SOUND, MISSED))],
        [a for a in ANALYSES if a.name == "audit"],
    ),
    "diverged": ([make_recording(status=s) for s in ("diverged", "interrupted")], [make_analysis()]),
}  # fmt: skip


@pytest.mark.parametrize("case", SEVERAL)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_nothing_is_cut_or_runs_out_of_its_page(case: str) -> None:
    recordings, analyses = SEVERAL[case]
    document = read(typeset(compare(recordings, analyses), f"gradlens report {LONG} " * 4))
    for page in document:
        inside = pymupdf.Rect(50, 20, page.rect.width - 50, page.rect.height - 20)
        outside = [w[4] for w in page.get_text("words") if not inside.contains(pymupdf.Rect(w[:4]))]
        assert not outside, f"page {page.number + 1}: {outside}"
        assert not overlapping(page), f"page {page.number + 1}"
    text = words(" ".join(page.get_text() for page in document))
    assert "gradlens report" in text


def test_the_built_in_analyses_fill_a_report(six: tuple[Recording, ...]) -> None:
    comparison = compare(six)
    document = read(typeset(comparison))
    printed = [section for section in comparison.sections if not section.silent]
    titles = [title for _, title, _ in document.get_toc()]
    assert all(any(section.analysis.title in title for title in titles) for section in printed)
    for page in document:
        assert not overlapping(page), f"page {page.number + 1}"
    assert set(document.embfile_names()) == {
        "findings.json", *(f"{section.analysis.name}.csv" for section in printed if len(section.table))
    }  # fmt: skip


def test_what_the_lens_missed_stands_on_the_first_page_and_leads_to_the_audit() -> None:
    document = read(typeset(compare([make_recording(audit=MISSED), make_recording("b", audit=SOUND)])))
    first = words(document[0].get_text())
    assert "pre-ln, warm-up: 1 of 2 norms never ran as modules" in first
    assert "GL001" in first
    (section,) = [page for _, title, page in document.get_toc() if "Audit" in title]
    links = [link for link in document[0].get_links() if "GL001" in document[0].get_textbox(link["from"])]
    assert [link["page"] + 1 for link in links] in ([section], [section + 1])


def test_the_audit_tells_setting_counts_and_every_gap() -> None:
    runs = [make_recording(label, audit=MISSED) for label in ("a", "b", "c", "d")]
    document = read(typeset(compare(runs)))
    text = words(" ".join(page.get_text() for page in document))
    audit = text[text.index("Did the lens see every normalization") :]
    for part in (
        "one step in 5", "4 seen in the first recorded step", "the GradScaler's, divided out of every gradient",
        "autocast to float16", "all 4 training runs: 1 of 2 norms never ran as modules: b.",
        "all 4 training runs 11 2 1", "Name their axes with gradlens.register_norm.",
        "attached to this file as audit.csv",
    ):  # fmt: skip
        assert part in audit
    assert "audit.csv" in document.embfile_names()


def test_a_label_of_every_sign_is_printed_as_it_is() -> None:
    label = "∂L/∂γ #let x = [*_`<a>\\]@b"
    document = read(typeset(compare([make_recording(label, variant=None)], [make_analysis()])))
    assert label in words(document[0].get_text())


@pytest.mark.parametrize("sign", ["👩\u200d👩\u200d👧", "①", "²", "e\u0301", "x" * 3000, "日本語", "\U0010fffd"])
def test_a_label_with_a_sign_that_no_font_has_breaks_no_report(sign: str) -> None:
    document = read(typeset(compare([make_recording(f"alpha {sign}", variant=None)], [make_analysis()])))
    assert "alpha" in document[0].get_text()


def test_a_label_with_dollar_signs_is_no_formula_in_the_figure() -> None:
    document = read(typeset(compare([make_recording("a $x^2$ b", variant=None)], [make_analysis()])))
    assert "a $x^2$ b" in words(document[1].get_text())


def test_missing_values_are_printed_as_a_dash_never_as_zero_or_nan() -> None:
    bare = Recording.from_tables(
        {"label": "bare", "kind": "attached"}, steps=make_recording().steps.drop(columns="valid_loss")
    )
    text = read(typeset(compare([bare, make_recording("full")], [make_analysis()])))[0].get_text()
    row = text[text.index("bare\n60 steps") :].split("full")[0]
    assert "–" in row
    assert "nan" not in text.lower()


def test_a_recording_a_list_or_a_comparison_can_be_reported(tmp_path: Path, comparison: Comparison) -> None:
    report(comparison, tmp_path / "made" / "a.pdf")
    assert (tmp_path / "made" / "a.pdf").read_bytes() == typeset(comparison)


def test_the_package_itself_can_be_called(tmp_path: Path, comparison: Comparison) -> None:
    gradlens.report(comparison, tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").stat().st_size > 10_000


def test_no_recording_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NothingFoundError):
        report([], tmp_path / "a.pdf")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_way_is_a_clear_error(tmp_path: Path, comparison: Comparison) -> None:
    (tmp_path / "a.pdf").mkdir()
    with pytest.raises(GradlensError, match="cannot be written"):
        report(comparison, tmp_path / "a.pdf")


def test_a_full_temporary_folder_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, comparison: Comparison, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(GradlensError, match="TMPDIR"):
        typeset(comparison)


def test_a_failed_report_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, analysis: Callable[..., Analysis]
) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        report(compare([make_recording()], [analysis(plot=lambda table, figure: 1 / 0)]), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.pdf"]


def test_the_fakes_of_these_tests_never_change_their_table() -> None:
    table = loss_table([make_recording()])
    before = table.copy()
    from matplotlib.figure import Figure

    plot_losses(table, Figure())
    judge_losses(table)
    assert table.equals(before)
