"""Colours that stay with their variant, axes that fit what they show, legends that fit the page."""

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analyses import ANALYSES, drawing
from gradlens.analysis import compare
from gradlens.analysis.figures import draw, draw_strip
from gradlens.lab.models.variants import ARRANGEMENTS
from gradlens.lab.norms import NORMS
from tests.analyses.pictures import faults
from tests.reporting.conftest import make_recording


def runs(*variants: str, schedules: tuple[str, ...] = ("",)) -> pd.DataFrame:
    rows = [(f"{v} {s}", v, s) for v in variants for s in schedules]
    return pd.DataFrame(rows, columns=["label", "variant", "schedule"])


def test_pre_ln_and_post_ln_have_their_own_colours_whatever_stands_beside_them() -> None:
    alone = drawing.looks(runs("post-ln"))["post-ln "]
    among = drawing.looks(runs("a", "b", "pre-ln", "post-ln", "c"))["post-ln "]
    assert alone == among


def test_every_variant_of_the_zoo_can_be_told_from_every_other() -> None:
    variants = [f"{a}/{n}" for a in ARRANGEMENTS for n in NORMS]
    styles = drawing.looks(runs(*variants[:16]))
    pairs = [(look["color"], look["marker"]) for look in styles.values()]
    assert len(set(pairs)) == len(pairs)


def test_up_to_six_variants_have_six_colours() -> None:
    styles = drawing.looks(runs("pre-ln", "post-ln", "pre-ln/adanorm", "pre-ln/rmsnorm", "m:build", "n:build"))
    assert len({look["color"] for look in styles.values()}) == 6


def test_every_arrangement_has_a_colour_of_its_own() -> None:
    assert len({look["color"] for look in drawing.looks(runs(*ARRANGEMENTS)).values()}) == len(ARRANGEMENTS)


@pytest.mark.parametrize("name", ["depth_profile", "norm_decomposition", "training_curves"])
def test_eleven_models_are_drawn_without_text_that_is_cut_or_overlaps(name: str) -> None:
    names = [arrangement for arrangement in ARRANGEMENTS if arrangement != "plain"]
    kinds = ("training",) if name == "training_curves" else ("init",)
    recordings = [make_recording(v, variant=v, kind=kind, steps=5) for v in names for kind in kinds]
    (analysis,) = (analysis for analysis in ANALYSES if analysis.name == name)
    (section,) = compare(recordings, [analysis]).sections
    figure = draw(analysis, section.table)
    assert faults(figure) == []
    if name != "training_curves":
        titles = [ax.get_title(loc="left") + ax.get_ylabel() for ax in figure.axes]
        assert all(any(drawing.in_lines(v) in title for title in titles) for v in names)
    if analysis.strip is not None:
        strip = draw_strip(analysis, section.table, [])
        assert faults(strip) == []
        assert any(str(entry.get_text()).endswith(" others") for entry in strip.legends[0].get_texts())


def test_a_schedule_changes_the_dashes_and_not_the_colour() -> None:
    warm, cold = drawing.looks(runs("pre-ln", schedules=("warm-up", "no warm-up"))).values()
    assert warm["color"] == cold["color"]
    assert warm["linestyle"] != cold["linestyle"]


def test_two_runs_of_one_variant_and_schedule_differ() -> None:
    table = pd.DataFrame({"label": ["a", "b", "c"], "variant": "pre-ln", "schedule": ""})
    assert len({str(look["linestyle"]) for look in drawing.looks(table).values()}) == 3


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1.0, 9.0], "linear"), ([1.0, 11.0], "log"), ([0.0, 100.0], "linear"), ([float("nan"), 1.0], "linear")],
)
def test_an_axis_is_logarithmic_where_values_span_more_than_a_decade(values: list[float], scale: str) -> None:
    axes = Figure().subplots()
    drawing.value_axis(axes, values)
    assert axes.get_yscale() == scale


def test_shares_that_are_zero_stay_on_a_logarithmic_axis() -> None:
    axes = Figure().subplots()
    axes.plot([0, 1, 2], [0.0, 0.01, 0.1])
    drawing.value_axis(axes, [0.0, 0.01, 0.1], zero=True)
    assert axes.get_yscale() == "symlog"
    FigureCanvasAgg(axes.figure).draw()  # type: ignore[arg-type]
    assert axes.get_ylim()[0] <= 0


def test_a_legend_of_long_labels_stays_on_the_page() -> None:
    figure = Figure(figsize=(6.7, 2.0), layout="constrained")
    figure.subplots()
    drawing.legend(figure, [drawing.entry("my_package.models:build_the_model " * 3, color="k") for _ in range(4)])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.legends[0].get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_ticks_are_plain_numbers_where_they_are_short() -> None:
    assert [drawing._plain(value, 0) for value in (0.0, 0.01, 50.0)] == ["0", "0.01", "50"]
    assert drawing._plain(1e-6, 0) == "$10^{-6}$"
    assert drawing._plain(-5e-6, 0) == r"$-5 \cdot 10^{-6}$"


@pytest.mark.parametrize("values", [[1.1e-5, 2.9e-4], [3e-6, 4e-5], [2e5, 3e6], [1e-9, 1.0]])
def test_every_tick_of_a_logarithmic_axis_has_a_label_of_its_own(values: list[float]) -> None:
    axes = Figure().subplots()
    axes.plot(values)
    drawing.value_axis(axes, values)
    FigureCanvasAgg(axes.figure).draw()  # type: ignore[arg-type]
    labels = [text for tick in axes.get_yticks() if (text := axes.yaxis.get_major_formatter()(tick, 0))]
    assert len(set(labels)) == len(labels) > 2


def test_a_legend_has_an_entry_a_variant_and_an_entry_a_recording_only_where_two_would_share_it() -> None:
    paired = runs("pre-ln", "post-ln", schedules=("warm-up", "no warm-up"))
    entries = drawing.run_entries(paired, drawing.looks(paired))
    assert [entry.get_label() for entry in entries] == ["pre-ln", "post-ln"]
    repeated = pd.DataFrame({"label": ["seed 0", "seed 1"], "variant": "pre-ln", "schedule": ""})
    entries = drawing.run_entries(repeated, drawing.looks(repeated))
    assert [entry.get_label() for entry in entries] == ["seed 0", "seed 1"]
