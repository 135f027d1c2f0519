"""The page for a browser, opened and used in one: with a pointer, with keys alone, on a phone, in the dark."""

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradlens.analysis import Comparison, compare
from gradlens.reporting.document import document
from gradlens.reporting.findings import to_csv
from gradlens.reporting.html import page as html_page
from gradlens.reporting.numbers import number
from tests.reporting.conftest import make_analysis, make_recording
from tests.reporting.test_html import HOSTILE
from tests.reporting.test_html_figures import pie

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("no Chromium is installed here", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")

#: The least contrast of text with its ground, of everything that is shown: WCAG's formula.
CONTRAST = """() => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const parts = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => {
    const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour[3] > 250) return colour;
    }
  };
  let least = [99, ""];
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
    const style = getComputedStyle(e), svg = e instanceof SVGElement;
    const both = [parts(svg ? style.fill : style.color), ground(svg ? e.closest("div") : e)];
    const [a, b] = both.map((colour) => light(colour.slice(0, 3)));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least[0]) least = [ratio, e.outerHTML.slice(0, 99)];
  }
  return least;
}"""


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    runs = [
        make_recording(HOSTILE),
        make_recording("post-ln, warm-up", variant="post-ln"),
        make_recording("x", kind="init"),
    ]
    odd = make_analysis("odd", title="Odd", kinds=("init",), plot=lambda _, figure: pie(figure))
    return compare(runs, [make_analysis(), odd])


@pytest.fixture(scope="module")
def file(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(html_page(comparison, document(comparison)))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Any, file: Path, width: int = 1280, **how: Any) -> Any:
    page = browser.new_page(viewport={"width": width, "height": 800}, reduced_motion="reduce", **how)
    page.set_default_timeout(10_000)
    page.faults, page.asked = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda message: page.faults.append(message.text))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]")
    return page


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    page = opened(browser, file)
    yield page
    page.close()


def figure(page: Any) -> Any:
    """Return the panel of the losses, in view."""
    panel = page.locator("[data-figure=losses] .panel svg")
    panel.scroll_into_view_if_needed()
    return panel


def ticks(panel: Any) -> list[float]:
    return [float(text) for text in panel.locator("text[text-anchor=middle]").all_text_contents() if text.isdigit()]


def test_it_opens_without_a_fault_asks_for_nothing_and_runs_nothing_of_a_recording(page: Any, file: Path) -> None:
    assert page.faults == []
    assert page.asked == [file.as_uri()]
    assert page.title() != "run"
    assert page.locator("img[src=x]").count() == 0
    assert HOSTILE in page.locator("#verdict tbody").inner_text()


def test_a_figure_tells_the_values_under_the_pointer(page: Any, comparison: Comparison) -> None:
    panel = figure(page)
    box = panel.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    said = page.locator("[data-figure=losses] .said").inner_text()
    step = re.search(r"step (\d+)", said)
    assert step
    rows = comparison.tables["losses"].query(f"x == {step[1]}")
    assert len(rows) == 2
    for label, value in zip(rows["label"], rows["value"], strict=True):
        assert f"{label} {number(value, 4)}" in said


def test_a_figure_that_is_not_known_is_there_as_a_picture_with_its_words(page: Any) -> None:
    picture = page.locator("[data-figure=odd] img")
    assert picture.evaluate("e => e.decode().then(() => e.naturalWidth)") > 300
    assert "Figure: Odd." in picture.get_attribute("alt")


def test_dragging_over_a_figure_zooms_and_a_button_shows_all_again(page: Any) -> None:
    panel = figure(page)
    before, box = ticks(panel), panel.bounding_box()
    for x, act in ((0.5, page.mouse.down), (0.7, page.mouse.up)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + 60)
        act()
    inside = ticks(panel)
    assert max(before) - min(before) > 2 * (max(inside) - min(inside))
    assert min(inside) > min(before)
    page.get_by_role("button", name="Show all").first.click()
    assert ticks(panel) == before


def test_a_figure_is_used_with_keys_alone(page: Any) -> None:
    panel = figure(page)
    panel.focus()
    before = ticks(panel)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "step 1" in page.locator("[data-figure=losses] .said").inner_text()
    page.keyboard.press("+")
    assert max(ticks(panel)) < max(before)
    page.keyboard.press("0")
    assert ticks(panel) == before
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.title") == "Show all"


def test_a_legend_hides_a_line(page: Any) -> None:
    panel = figure(page)
    entry = page.locator("[data-figure=losses] .legend button").first
    drawn = panel.locator("path[stroke-width]").count()
    entry.click()
    assert panel.locator("path[stroke-width]").count() == drawn - 1
    assert entry.get_attribute("aria-pressed") == "false"


def test_a_table_is_sorted_by_the_column_that_is_pressed(page: Any, comparison: Comparison) -> None:
    head = page.locator("#verdict th", has_text="loss").first
    cells = page.locator(f"#verdict tbody tr > :nth-child({1 + head.evaluate('e => e.cellIndex')})")
    losses = sorted(comparison.summary["loss"].dropna())
    for order, shown in (("ascending", losses), ("descending", losses[::-1])):
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == order
        assert [text for text in cells.all_inner_texts() if text != "–"] == [number(loss) for loss in shown]


def test_a_finding_leads_to_its_place_even_where_that_is_folded(page: Any) -> None:
    for link in page.locator("#checks a[href^='#check-']").all():
        link.click()
        place = page.locator(f"[id='{link.get_attribute('href')[1:]}']")
        assert place.locator("table").is_visible()
        assert place.evaluate("e => Math.abs(e.getBoundingClientRect().top) < innerHeight")


def test_a_findings_site_leads_to_its_row_of_the_map(page: Any) -> None:
    page.locator("[data-site]").first.click()
    assert page.locator("#sites input").input_value() == "blocks.0.attention_norm"
    assert page.locator("#sites output").inner_text() == "1 of 8 places"


def test_the_map_is_searched_and_tells_what_was_recorded(page: Any, comparison: Comparison) -> None:
    page.locator("#sites input").fill("FFN_norm")
    page.locator("#sites select").last.select_option("post-ln, warm-up")
    assert page.locator("#sites output").inner_text() == "4 of 8 places"
    page.locator("#sites .panel svg").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    rows = comparison.recordings[1].norms.query("step == 2 and site == 'blocks.1.ffn_norm'")
    assert page.locator("#sites .said").inner_text() == f"step 2 blocks.1.ffn_norm: {number(rows['kept'].item(), 4)}"
    page.locator("#sites input").fill("nowhere")
    assert "No place" in page.locator("#sites [data-sites]").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes_and_on_a_phone(browser: Any, file: Path, scheme: str) -> None:
    page = opened(browser, file, 390, color_scheme=scheme, has_touch=True)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # which unfolds all there is
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    ratio, where = page.evaluate(CONTRAST)
    assert ratio >= 4.5, where
    box = figure(page).bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator("[data-figure=losses] .said").inner_text().startswith("step ")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    page.close()


def test_the_first_key_offers_to_skip_to_the_report(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_the_document_and_its_tables_are_saved_as_they_are(page: Any, comparison: Comparison) -> None:
    with page.expect_download() as saved:
        page.get_by_role("button", name="findings.json").click()
    content = Path(saved.value.path()).read_text("utf-8")
    assert json.loads(content) == document(comparison)
    with page.expect_download() as saved:
        page.get_by_role("button", name="losses.csv").click()
    assert Path(saved.value.path()).read_bytes() == to_csv(comparison.tables["losses"])


def test_numbers_are_printed_and_read_as_everywhere_else(page: Any) -> None:
    values = [0.98765, -1024, 12e-7, 123456.7, 5e9, 0, -3.0, 99950.0, 0.00012345, 1e15, 2.5]
    assert page.evaluate("values => values.map((v) => printed(v, 3))", values) == [number(v) for v in values]
    read = page.evaluate("texts => texts.map(read)", [number(v, 4) for v in values] + ["1.29 M", "312 k weights"])
    assert read == pytest.approx([*values, 1_290_000, 312_000], rel=1e-3)


AXES = [
    ("linear", 0, [0, 1]), ("linear", 0, [5.5, -0.5]), ("linear", 0, [1e-7, 3e-7]), ("linear", 0, [-2e9, 7e9]),
    ("log", 0, [1e-12, 1e13]), ("log", 0, [0.3, 40]), ("log", 0, [2, 3]), ("log", 0, [0.9, 1.1]),
    ("symlog", 1e-3, [0, 0.8]), ("symlog", 1e-3, [-1e-4, 500]), ("symlog", 1, [-1e6, 1e6]),
]  # fmt: skip


@pytest.mark.parametrize("most", [2, 5, 12])
def test_ticks_lie_on_their_axis_apart_from_each_other_and_say_where(page: Any, most: int) -> None:
    for scale, below, ends in AXES:
        axis = {"scale": scale, "linear_below": below, "ends": ends, "ticks": None}
        ask = "([a, most]) => new Scale(a).ticks(most).map(([v, text]) => [v, new Scale(a).to(v), read(text)])"
        found = page.evaluate(ask, [axis, most])
        assert 2 <= len(found) <= max(most, 3) + 3, axis
        for value, share, said in found:
            assert -1e-6 <= share <= 1 + 1e-6, axis
            assert said == pytest.approx(value, rel=0.01, abs=1e-12), axis
        shares = sorted(share for _, share, _ in found)
        assert min(b - a for a, b in itertools.pairwise(shares)) > 0.3 / max(most, 3), axis


def test_a_scale_leads_there_and_back(page: Any) -> None:
    for scale, below, ends in AXES:
        axis = {"scale": scale, "linear_below": below, "ends": ends, "ticks": None}
        back = page.evaluate("axis => [0, 0.25, 0.5, 1].map((u) => new Scale(axis).to(new Scale(axis).from(u)))", axis)
        assert back == pytest.approx([0, 0.25, 0.5, 1], abs=1e-6)
