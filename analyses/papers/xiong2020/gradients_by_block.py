"""Fig. 3(a, b) of the paper: the gradients of the FFN's matrices by block, at initialization and after the warm-up."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses import drawing
from analyses.intervals import Interval, log_t_interval
from analyses.papers.xiong2020 import panels
from analyses.papers.xiong2020.gradients_by_block_findings import CODES, NAME, REFERENCE, judge
from analyses.papers.xiong2020.measured import W1, W2, depth, gradients, initial, of, of_paper, profile
from analyses.papers.xiong2020.prediction import predicted
from analyses.papers.xiong2020.runs import warm_up_runs
from analyses.tables import SUMMARY, pick, tidy
from gradlens.analysis import Analysis
from gradlens.recording import Recording

_STACKS = ("encoder", "decoder")
_MATRICES = {W1: "W1", W2: "W2"}
#: Recorded steps behind the end of the warm-up whose mean is shown: the batches of single steps differ much.
_AFTER = 5
FIRST, AFTER = "first step", "after the warm-up"
_LOOKS: dict[str, drawing.Look] = {
    FIRST: {**panels.LOOKS["post-ln"], "markerfacecolor": "white", "markeredgewidth": 0.9},
    AFTER: {"color": "#009E73", "marker": "^", "linestyle": "-"},
}


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the gradient norms by block, what theory says of them, and the ratios that are judged.

    Args:
        recordings: of any kind. At initialization the shallowest encoder-decoders count (6-6 in the paper); of the
            training runs those of Post-LN with Adam and the whole warm-up.
    """
    found = of_paper(initial(recordings, "encoder-decoder"))
    shallowest = min((depth(recording) for recording in found), default=0)
    rows = [row for r in found if depth(r) == shallowest for row in _at_init(r)]
    return tidy([*rows, *_trained(recordings)])


def _at_init(recording: Recording) -> Iterator[dict[str, Any]]:
    table, theory = gradients(recording), predicted(recording)
    for stack in _STACKS:
        for group in _MATRICES:
            fixed = {**of(recording), "panel": stack, "stack": stack, "group": group, "unit": "loss/weight"}
            measured = profile(table, stack, group)
            for block in measured.columns:
                yield {**fixed, "quantity": panels.MEASURED, "x": block, **log_t_interval(measured[block]).row()}
            curve = theory.gradients.get((stack, group), pd.Series(dtype="float64"))
            yield from ({**fixed, "quantity": panels.PREDICTED, "x": x, "value": v} for x, v in curve.items())
            ratio = {"value": curve.iloc[-1] / curve.iloc[0]} if len(curve) else {}
            summary = {**fixed, "panel": SUMMARY, "unit": "", "x": len(measured.columns)}
            yield {**summary, "quantity": "last/first", **log_t_interval(_ratio(measured)).row()}
            yield {**summary, "quantity": "last/first, theory", **ratio}


def _ratio(measured: pd.DataFrame) -> pd.Series:
    return measured.iloc[:, -1] / measured.iloc[:, 0]


def _trained(recordings: Sequence[Recording]) -> Iterator[dict[str, Any]]:
    """Yield the profiles at the first step and after the warm-up; the network is narrower, so it is its own measure."""
    runs = warm_up_runs(recordings)
    runs = runs[runs["task"].str.startswith("translation")]
    runs = runs[(runs["variant"] == "post-ln") & (runs["optimizer"] == "adam") & (runs["warm_up"] == "full")]
    for lr, own in runs[runs["status"] == "complete"].groupby("lr"):
        ends = [both for recording in own["recording"] if (both := _first_and_after(recording)) is not None]
        who = {"label": f"Post-LN, Adam, learning rate {lr:g}", "variant": "post-ln", "schedule": f"{lr:g}"}
        for group in _MATRICES if ends else ():
            for quantity, profiles in zip((FIRST, AFTER), zip(*ends, strict=True), strict=True):
                wide = pd.concat([of_seed[group] for of_seed in profiles], axis=1).T
                fixed = {**who, "panel": "trained", "quantity": quantity, "stack": "decoder", "group": group}
                for block in wide.columns:
                    yield {**fixed, "x": block, **log_t_interval(wide[block]).row()}
            last = [after[group].iloc[-1] / first[group].iloc[-1] for first, after in ends]
            interval: Interval = log_t_interval(last)
            yield {**who, "panel": SUMMARY, "quantity": "after/first", "group": group, **interval.row()}


def _first_and_after(recording: Recording) -> tuple[dict[str, pd.Series], dict[str, pd.Series]] | None:
    """Return the decoder's profiles by matrix, at the first recorded step and just after the warm-up."""
    table = gradients(recording)
    profiles = {group: profile(table, "decoder", group) for group in _MATRICES}
    steps = profiles[W2].index
    behind = [step for step in steps if step >= recording.meta["training"]["warmup"]][:_AFTER]
    if not behind or steps[0] in behind:
        return None
    first = {group: rows.loc[steps[0]] for group, rows in profiles.items()}
    return first, {group: rows.loc[behind].mean() for group, rows in profiles.items()}


def plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a row a matrix; encoder and decoder at initialization, and the decoder of the trained networks.

    Args:
        table: of ``compute``.
        figure: an empty one.
    """
    drawn = table[table["panel"] != SUMMARY]
    if drawn.empty:
        drawing.say(figure, "No recording holds the gradients of an encoder-decoder.")
        return
    titles = {"encoder": "encoder, at the start", "decoder": "decoder, at the start", "trained": "decoder, in training"}
    shown = [panel for panel in titles if (drawn["panel"] == panel).any()]
    axes = figure.subplots(len(_MATRICES), len(shown), squeeze=False)
    for row, (group, name) in zip(axes, _MATRICES.items(), strict=True):
        for ax, panel in zip(row, shown, strict=True):
            own = pick(drawn, panel=panel, group=group)
            if panel == "trained":
                _draw_trained(ax, own)
            else:
                panels.measurements(ax, own)
            drawing.value_axis(ax, panels.finite(own["value"], own["low"], own["high"]), log_from=1.5)
            drawing.counted_axis(ax, "block" if name == "W2" else "", start=1)
            ax.set_title(f"{name}, {titles[panel]}")
        row[0].set_ylabel("gradient norm")
    keys = panels.entries(drawn[drawn["panel"] != "trained"])
    if "trained" in shown:
        keys += [drawing.entry(f"Post-LN, {name}", **look) for name, look in _LOOKS.items()]
    drawing.legend(figure, keys, columns=5)


def _draw_trained(ax: Any, rows: pd.DataFrame) -> None:
    """Draw both profiles of every learning rate; the higher ones broken."""
    for dashes, (_, own) in zip(("-", (0, (4, 1.5)), (0, (1, 1))), rows.groupby("schedule", sort=False), strict=False):
        for quantity, look in _LOOKS.items():
            drawing.measured(ax, pick(own, quantity=quantity), look | {"linestyle": dashes})


ANALYSIS = Analysis(
    name=NAME,
    title="Gradients by block, at the start and after the warm-up",
    question="Do the gradients of a Post-LN network grow from block to block, and are they small after the warm-up?",
    reading=(
        "The L2 norm of the gradient of the FFN's matrices W1 and W2 in each block of the shallowest encoder-decoder, "
        "as in the paper's Fig. 3(a, b): mean over seeds (geometric) in its 95 % interval, dotted what theory says. "
        "The paper's bound falls by √(2/3) a block towards the input for every Post-LN stack; an exact computation "
        "leaves the encoder flat, for the FFN's skip path gives back what the norm takes, and finds the decline only "
        "in the decoder, whose cross-attention sends hardly any gradient back. Pre-LN looks flat on Post-LN's scale; "
        "it falls like one over the stream's size. Right, Post-LN networks in training, narrower than those on the "
        "left and so to be held against their own first step: mean of five recorded steps after the warm-up; broken, "
        "the higher learning rate. Norms of single batches, an upper bound of the mean gradient's that the paper shows."
    ),
    needs={"params": ("step", "name", "grad_norm")},
    compute=compute,
    plot=plot,
    judge=judge,
    kinds=("init", "training"),
    size=(6.7, 4.1),
    codes=CODES,
    reference=REFERENCE,
    optional=True,
)
