"""What a page draws of a figure: each thing that was drawn, as numbers; what is not known, as it is."""

import base64
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from analyses import ANALYSES
from gradlens.analysis import compare
from gradlens.reporting.html.figures import drawing
from tests.reporting.conftest import make_recording

X, Y = [0, 1, 3, 4], [2.0, 0.5, np.nan, 1 / 3]


def axes() -> Axes:
    return Figure(figsize=(6.7, 3.4), layout="constrained").subplots()


def panel(ax: Axes) -> dict[str, Any]:
    figure = ax.figure
    assert isinstance(figure, Figure)
    found: dict[str, Any] = drawing(figure)["rows"][0]["panels"][0]
    return found


def test_a_line_is_its_points_its_look_and_its_name() -> None:
    ax = axes()
    ax.plot(X, Y, color="#0072B2", linewidth=2, linestyle="--", marker="s", markersize=3, label="pre-ln")
    (line,) = panel(ax)["marks"]
    assert (line["x"], line["y"]) == (X, [2.0, 0.5, None, 0.333333])
    assert (line["name"], line["width"], line["dashes"], line["filled"]) == ("pre-ln", 2, [7.4, 3.2], "colour")
    assert line["marker"] == "m-1.5 1.5l3 0l0 -3l-3 0z"  # a square of 3 points around its place
    assert line["colour"].startswith("light-dark(#0072b2, #")


def test_a_line_without_a_label_has_that_of_the_legends_entry_that_looks_like_it() -> None:
    ax = axes()
    ax.plot(X, X, color="red", linestyle=":")
    ax.plot(X, Y, color="red")
    entries = [matplotlib.lines.Line2D([], [], color="red", linestyle=s, label=n) for s, n in (("-", "a"), (":", "b"))]
    ax.figure.legend(handles=entries)
    assert [mark["name"] for mark in panel(ax)["marks"]] == ["b", "a"]


def test_a_band_is_an_outline_through_its_ends() -> None:
    ax = axes()
    ax.fill_between([1, 2], [3, 4], [5, 7], color="red", alpha=0.25, linewidth=0)
    (band,) = panel(ax)["marks"]
    corners = {*zip(band["x"], band["y"], strict=True)}
    assert {(1, 3), (1, 5), (2, 4), (2, 7)} == corners
    assert (band["kind"], band["alpha"]) == ("area", 0.25)


def test_bars_are_rectangles_and_error_bars_strokes() -> None:
    ax = axes()
    ax.bar([1, 2], [3, 4], width=0.5)
    ax.errorbar([1], [3], yerr=[0.5], fmt="o")
    found = panel(ax)["marks"]
    bars = [mark for mark in found if mark["kind"] == "area"]
    ends = [(min(bar["x"]), max(bar["x"]), min(bar["y"]), max(bar["y"])) for bar in bars]
    assert ends == [(0.75, 1.25, 0, 3), (1.75, 2.25, 0, 4)]
    assert [2.5, 3.5] in [mark["y"] for mark in found if mark["kind"] == "line"]


def test_a_frame_without_a_face_is_its_edge() -> None:
    ax = axes()
    ax.add_patch(Rectangle((1, 2), 3, 4, fill=False, linewidth=0.7))
    (edge,) = panel(ax)["marks"]
    assert (edge["kind"], edge["width"], {*edge["x"]}, {*edge["y"]}) == ("line", 0.7, {1, 4}, {2, 6})


def test_points_and_spans_are_where_they_were_drawn() -> None:
    ax = axes()
    ax.scatter(X, X, s=16)
    ax.axhline(0.25)
    ax.axvspan(1, 2)
    by_frame = {(mark["kind"], *mark["frame"]): mark for mark in panel(ax)["marks"]}
    assert by_frame["line", 0, 0]["x"] == X
    assert by_frame["line", 1, 0]["x"] == pytest.approx([0, 1], abs=1e-9)
    assert by_frame["line", 1, 0]["y"] == [0.25, 0.25]
    assert {*by_frame["area", 0, 1]["x"]} == {1, 2}


def test_words_keep_their_place_and_a_note_its_distance_in_points() -> None:
    ax = axes()
    ax.text(0.1, 0.9, "two\nlines", transform=ax.transAxes, ha="center", rotation=90)
    ax.annotate("note", (1, 0.5), (3, -4), xycoords=("data", "axes fraction"), textcoords="offset points")
    text, note = panel(ax)["marks"]
    assert (text["text"], text["frame"], text["across"], text["turn"]) == ("two\nlines", [1, 1], "middle", -90)
    assert (note["x"], note["y"], note["frame"]) == ([1], [0.5], [0, 1])
    assert note["shift"] == pytest.approx([3, 4], abs=1e-6)


def test_a_picture_is_its_values_and_its_scale() -> None:
    ax = axes()
    values = np.array([[1.0, 10.0, np.nan], [100.0, 5.0, 2.0]])
    image = ax.imshow(values, extent=(0, 30, 1.5, -0.5), norm=LogNorm(1, 100))
    ax.figure.colorbar(image, ax=ax, label="gradient norm")
    found = panel(ax)
    (grid,) = found["marks"]
    assert grid["values"] == [[1, 10, None], [100, 5, 2]]
    assert (grid["extent"], grid["low"], grid["high"], grid["log"]) == ([0, 30, 1.5, -0.5], 1, 100, True)
    assert found["key"] == "gradient norm"


def test_axes_keep_scale_ends_and_the_words_of_ticks_that_are_no_numbers() -> None:
    ax = axes()
    ax.set(xscale="log", xlim=(1, 1e6), xlabel="step", ylim=(1.5, -0.5))
    ax.set_yticks([0, 1], ["first", "last"])
    found = panel(ax)
    assert (found["x"]["scale"], found["x"]["ends"], found["x"]["ticks"]) == ("log", [1, 1e6], None)
    assert (found["y"]["ends"], found["y"]["ticks"]) == ([1.5, -0.5], [(0, "first"), (1, "last")])
    ax.set_xticks([10, 1000], ["", ""])
    assert panel(ax)["x"]["ticks"] == []
    ax.set_yscale("symlog", linthresh=0.01)
    assert panel(ax)["y"]["linear_below"] == 0.01


def test_very_many_points_are_drawn_by_the_least_and_the_largest_of_successive_ones() -> None:
    ax = axes()
    y = np.zeros(400_000)
    y[[31_415, 92_653]] = 7, -7
    ax.plot(y)
    ax.plot(X, Y)
    line, short = panel(ax)["marks"]
    assert len(line["x"]) <= 75_000
    drawn = dict(zip(line["x"], line["y"], strict=True))
    assert (drawn[31_415], drawn[92_653]) == (7, -7)
    assert short["x"] == X


def pie(figure: Figure) -> None:
    figure.subplots().add_patch(Ellipse((0.5, 0.5), 0.2, 0.1))


def formula(figure: Figure) -> None:
    figure.subplots().text(0, 0, r"$\frac{1}{H}$")


def formula_in_a_title(figure: Figure) -> None:
    figure.subplots().set_title(r"$\hat{x}$")


def formula_at_a_tick(figure: Figure) -> None:
    figure.subplots().set_yticks([0, 1], ["none", r"$\sigma^2$"])


def no_axes(figure: Figure) -> None:
    figure.subplots().set_axis_off()


def polar(figure: Figure) -> None:
    figure.subplots(subplot_kw={"projection": "polar"})


def twins(figure: Figure) -> None:
    figure.subplots().twinx()


def inset(figure: Figure) -> None:
    figure.subplots().inset_axes((0.5, 0.5, 0.4, 0.4))


def arrow(figure: Figure) -> None:
    figure.subplots().annotate("here", (0, 0), (1, 1), arrowprops={"arrowstyle": "->"})


def hexagons(figure: Figure) -> None:
    figure.subplots().hexbin([0, 1, 2], [0, 1, 2])


def logit(figure: Figure) -> None:
    figure.subplots().set_yscale("logit")


@pytest.mark.parametrize(
    "draw", [pie, formula, formula_in_a_title, formula_at_a_tick, no_axes, polar, twins, inset, arrow, hexagons, logit]
)
def test_what_is_not_known_is_shown_as_it_is_drawn(draw: Any) -> None:
    figure = Figure()
    draw(figure)
    found = drawing(figure)
    assert [*found] == ["svg"]
    assert base64.b64decode(found["svg"]).startswith(b"<?xml")


def test_every_figure_of_ours_is_read() -> None:
    comparison = compare([make_recording(kind="init", steps=3), make_recording(steps=12)], ANALYSES)
    assert len(comparison.figures) >= 4
    assert [name for name, figure in comparison.figures.items() if "svg" in drawing(figure)] == []
