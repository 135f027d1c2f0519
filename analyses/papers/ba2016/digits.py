"""Held-out loss over steps on MNIST without an order of pixels, by batch size and norm: the paper's Figure 6."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.intervals import t_interval
from analyses.papers import run_curves
from analyses.papers.ba2016.runs import BA, LOOKS, NORMS, digit_runs
from analyses.steps import over_seeds
from analyses.tables import SUMMARY, pick, tidy, with_spread
from gradlens.analysis import Analysis
from gradlens.recording import Recording


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return held-out losses over steps, mean over seeds in their range; in the summary the ends with intervals.

    Args:
        recordings: of training; runs on digits that came to an end count, of curves those that did not diverge.
    """
    runs = digit_runs(recordings)
    return tidy(_rows(runs[runs["ended"].astype(bool)]))


def _rows(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for (batch, norm), own in runs.groupby(["batch", "norm"], sort=False):
        who = {"panel": str(batch), "label": NORMS[str(norm)], "variant": str(norm)}
        whole = own[~own["diverged"].astype(bool)]
        curves = [r.steps.set_index("step")["valid_loss"].dropna() for r in whole["recording"]]
        yield from over_seeds(curves, {**who, "quantity": "valid_loss"})
        for quantity, factor in (("valid_loss", 1.0), ("accuracy", 100.0)):
            ends = t_interval(factor * whole[quantity].astype(float))
            yield {**who, "panel": SUMMARY, "group": str(batch), "quantity": quantity, **ends.row()}
        yield {**who, "panel": SUMMARY, "group": str(batch), "quantity": "diverged", "value": len(own) - len(whole),
               "n": len(own)}  # fmt: skip


def _plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a panel a batch size, a line a norm."""
    drawn = table[table["panel"] != SUMMARY]
    if drawn.empty:
        drawing.say(figure, "No training run on digits came to an end.")
        return
    batches = sorted(drawn["panel"].unique(), key=int, reverse=True)
    for ax, batch in zip(figure.subplots(1, len(batches), squeeze=False)[0], batches, strict=True):
        own = pick(drawn, panel=batch)
        for norm in NORMS:
            if len(line := pick(own, variant=norm).sort_values("x")):
                run_curves.together(ax, line, LOOKS[norm], 0.15, markersize=2.5)
        ax.set_title(f"Batches of {batch}")
        drawing.value_axis(ax, own["value"], "held-out loss (nats per image)", log_from=3)
        drawing.counted_axis(ax, "step", most=4)
    there = [norm for norm in NORMS if (drawn["variant"] == norm).any()]
    drawing.legend(figure, [drawing.entry(NORMS[norm], **LOOKS[norm]) for norm in there])


def _show(table: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Return the ends by batch size and norm."""
    rows, lines = pick(table, panel=SUMMARY), []
    for (batch, norm), own in rows.groupby(["group", "label"], sort=False):
        of = {str(row["quantity"]): row for _, row in own.iterrows()}
        lines.append(
            {
                "batches of": batch,
                "norm": norm,
                "held-out loss": with_spread(of["valid_loss"], 3),
                "accuracy, %": with_spread(of["accuracy"], 2),
                "diverged": f"{of['diverged']['value']:.0f} of {of['diverged']['n']:.0f}",
            }
        )
    return {"At the end, mean over seeds with half its 95 % interval; diverged runs are left out.": pd.DataFrame(lines)}


ANALYSIS = Analysis(
    name="ba2016_digits",
    title="Digits without an order of pixels",
    question="How does the held-out loss of each norm fall, in batches of 128 and of 4?",
    reading=(
        "The paper's Figure 6 with our images and sizes: held-out loss over steps, mean over seeds in their range. All "
        "norms of a batch size saw the same batches from the same start; BatchNorm is evaluated with its running mean "
        "and variance."
    ),
    needs={"steps": ("step", "loss")},
    compute=compute,
    plot=_plot,
    show=_show,
    judge=lambda table: [],
    kinds=("training",),
    size=(6.7, 2.7),
    reference=BA,
    optional=True,
)
