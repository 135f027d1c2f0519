"""The page for a browser as a file: what is in it, and that nothing of a recording becomes markup."""

import base64
import itertools
import json
import re
import zlib
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gradlens
from gradlens.analysis import Comparison, compare
from gradlens.recording import Recording
from gradlens.reporting.document import document
from gradlens.reporting.html import page, sites
from tests.reporting.conftest import judge_losses, make_analysis, make_recording

HOSTILE = "</script><img src=x onerror=\"document.title='run'\"><b>'&"


class Tags(HTMLParser):
    """Collects elements, and the text of some."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag in tags]


def of_script(text: str, name: str) -> str:
    found = re.search(rf'<script type="[^"]+" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert found
    return found[1]


def drawings(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(of_script(text, "drawings"))))


@pytest.fixture(scope="module")
def hostile() -> tuple[Comparison, str]:
    made = compare([make_recording(HOSTILE), make_recording("post-ln", variant="post-ln")], [make_analysis()])
    return made, page(made, document(made)).decode()


def test_the_page_holds_all_of_the_document_and_reads_back(hostile: tuple[Comparison, str]) -> None:
    comparison, text = hostile
    assert json.loads(of_script(text, "document")) == document(comparison)


def test_every_printed_number_is_that_of_the_document(hostile: tuple[Comparison, str]) -> None:
    comparison, text = hostile
    plain = re.sub(r"\s+", " ", unescape(re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", text, flags=re.DOTALL)))
    content = document(comparison)
    for finding in content["findings"]:
        row = plain[plain.rindex(finding["claim"].strip()) :]  # in its section, behind the table of checks
        said = (finding["claim"], *finding["printed"].values())
        assert row.startswith(f"{said[0]} {said[1]} {said[2]} {finding['unit']} {said[3]} ")
    for row in content["summary"]["printed"]:
        assert " ".join(row) in plain


def test_what_a_recording_says_is_text(hostile: tuple[Comparison, str]) -> None:
    _, text = hostile
    tags = Tags(text)
    assert not tags.of("img", "b")
    assert len(tags.of("script")) == 3
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert "&lt;img src=x" in text


def test_a_page_loads_nothing_and_runs_its_own_script_alone(hostile: tuple[Comparison, str]) -> None:
    _, text = hostile
    tags = Tags(text)
    links = [attributes.get(name) for _, attributes in tags.found for name in ("src", "href") if attributes.get(name)]
    assert all(link and link.startswith("#") for link in links)
    policy = next(a["content"] for a in tags.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]


def test_every_link_has_its_place_and_every_place_one_name(hostile: tuple[Comparison, str]) -> None:
    tags = Tags(hostile[1])
    places = [str(attributes["id"]) for _, attributes in tags.found if "id" in attributes]
    assert len(places) == len({*places})
    assert {str(a["href"])[1:] for a in tags.of("a")} <= {*places}


def test_headings_are_in_order_and_tables_have_heads(hostile: tuple[Comparison, str]) -> None:
    tags = Tags(hostile[1])
    levels = [int(tag[1]) for tag, _ in tags.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row") for attributes in tags.of("th"))
    assert all(attributes.get("aria-label") for attributes in tags.of("figure"))


def test_the_same_comparison_gives_the_same_bytes() -> None:
    pages = []
    for _ in range(2):
        made = compare([make_recording(steps=6)], [make_analysis()])
        pages.append(page(made, document(made)))
    assert pages[0] == pages[1]


def test_backticks_are_set_as_code() -> None:
    def judge(table: pd.DataFrame) -> list[Any]:
        return [f for f in judge_losses(table) if not object.__setattr__(f, "claim", "use `<warm-up>` here")]

    made = compare([make_recording(steps=6)], [make_analysis(judge=judge)])
    assert "use <code>&lt;warm-up&gt;</code> here" in page(made, document(made)).decode()


def test_a_map_holds_each_place_at_each_recorded_step() -> None:
    recording = make_recording(steps=7)
    found = {one["quantity"].partition(":")[0]: one for one in sites.maps([recording])[0]}
    kept = recording.norms.pivot(index="site", columns="step", values="kept")
    assert found["kept"]["sites"] == recording.sites.loc[recording.sites["kind"] == "norm", "site"].tolist()
    assert found["kept"]["steps"] == [[step, step] for step in range(7)]
    np.testing.assert_allclose(found["kept"]["grid"]["values"], kept.loc[found["kept"]["sites"]], rtol=1e-3)


def test_a_map_of_very_many_steps_holds_means_of_successive_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = make_recording(steps=60)
    monkeypatch.setattr(
        sites, "MOST_CELLS", 20 * 24
    )  # 8 rows of each of two quantities of norms, 4 of outputs and weights
    rms = next(one for one in sites.maps([recording])[0] if one["quantity"].startswith("rms"))
    assert rms["steps"][:2] == [[0, 2], [3, 5]]
    own = recording.activations[recording.activations["site"] == "blocks.0"].set_index("step")["rms"]
    assert rms["grid"]["values"][0][1] == pytest.approx(own[3:6].mean(), rel=1e-3)


def test_maps_that_the_page_has_no_room_for_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "MOST_CELLS", 20 * 13)
    recording = make_recording(steps=3)
    shown, left_out = sites.maps([recording])
    assert [len(one["sites"]) for one in shown] == [8, 4]
    assert left_out == 2
    made = compare([recording], [make_analysis()])
    assert "Of 4 maps the first 2 fit into this page." in page(made, document(made)).decode()


def test_values_that_are_no_numbers_are_left_out_of_a_maps_means() -> None:
    well = make_recording(steps=4)
    rows = well.activations.assign(rms=well.activations["rms"].where(well.activations["step"] != 2, np.inf))
    broken = Recording.from_tables(dict(well.meta), activations=rows, sites=well.sites, steps=well.steps)
    rms = next(one for one in sites.maps([broken])[0] if one["quantity"].startswith("rms"))
    assert [value is None for value in rms["grid"]["values"][0]] == [False, False, True, False]


def test_a_recording_without_places_has_no_map() -> None:
    bare = Recording.from_tables({"label": "a", "kind": "training"}, steps=pd.DataFrame({"step": [0], "loss": [1.0]}))
    made = compare([bare], [make_analysis()])
    assert 'id="sites"' not in page(made, document(made)).decode()


def test_the_name_of_the_file_decides_between_pages_and_a_page(tmp_path: Path) -> None:
    recording = make_recording(steps=6)
    gradlens.report(compare([recording], [make_analysis()]), tmp_path / "a.html", command="gradlens report x")
    written = (tmp_path / "a.html").read_bytes()
    assert written.startswith(b"<!doctype html>")
    assert b"gradlens report x" in written
