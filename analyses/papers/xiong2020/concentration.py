"""Definition 1 measured: how many tokens' norms in the stream are farther than a share from their mean, by block."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from scipy.special import chdtr, chdtrc

from analyses import drawing
from analyses.intervals import t_interval
from analyses.limits import limit
from analyses.papers import panels
from analyses.papers.findings import Code, question
from analyses.papers.measured import depth, initial, model, of
from analyses.papers.profiles import MEASURED, beside, finite, over
from analyses.papers.xiong2020.paper import PAPER, XIONG, of_paper
from analyses.tables import SUMMARY, percent, pick, span, tidy
from gradlens.analysis import Finding
from gradlens.recording import Recording

_PROBE = "concentration"
#: Readings of the probe to the share ε, narrowest first, with their dashes.
_SHARES = {"share beyond 0.1": 0.1, "share beyond 0.25": 0.25, "share beyond 0.5": 0.5}
_DASHES = dict(zip(_SHARES, ("-", (0, (4, 1.5)), (0, (1, 1.2))), strict=True))
_MAIN = "share beyond 0.1"
_GAUSSIAN = "independent entries"
_SITE = r"^(?:(?P<stack>encoder|decoder)\.)?blocks\.(?P<block>\d+)$"

NORMS = Code(
    code="GL611",
    analysis="xiong2020_concentration",
    explanation=(
        "The norms concentrate. Theorem 1 supposes that ‖x‖² of the last block's stream is near its mean for most "
        "tokens: (ε, δ)-bounded where a share δ of them at most is farther off than ε times the mean. The paper "
        "measures (0.1, 0.125) on its networks. The narrower the stream, the fewer entries a norm has to average over: "
        "for independent entries the width alone decides."
    ),
    unit="share of tokens",
    expected_from="the paper's measurement, at width 512",
    causes=(
        "A stream narrower than the paper's 512: independent entries exceed its share below that width.",
        "Tokens that occur often have norms of their own.",
    ),
    remedies=("Measure at the paper's width (--budget paper).",),
    reference=f"{XIONG}, Definition 1 and the remarks on it",
)


def compute(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return the shares of tokens beyond each ε by block, and the last decoder block's that is judged.

    Args:
        recordings: of any kind; the shallowest networks of each arrangement that hold the probe's readings count.
    """
    found = of_paper(initial(recordings, probe=_PROBE))
    shallowest = min((depth(recording) for recording in found), default=0)
    return tidy(row for recording in found if depth(recording) == shallowest for row in _rows(recording))


def _rows(recording: Recording) -> Iterator[dict[str, Any]]:
    probes = recording.probes
    probes = probes[(probes["probe"] == _PROBE) & probes["name"].isin(_SHARES)]
    places = probes["site"].astype(str).str.extract(_SITE).fillna({"stack": ""})
    probes = probes.assign(stack=places["stack"], block=places["block"].astype("float64") + 1).dropna(subset="block")
    width = float(model(recording)["width"])
    for (stack, name), own in probes.groupby(["stack", "name"]):
        wide = own.pivot_table(index="step", columns="block", values="value")
        fixed = {**of(recording), "panel": stack or "stack", "stack": stack, "group": name, "unit": "share of tokens"}
        yield from over(wide, t_interval, **fixed, quantity=MEASURED)
        if name == _MAIN and stack != "encoder":
            last = t_interval(wide.iloc[:, -1])
            yield {**fixed, "panel": SUMMARY, "quantity": "last block", "x": wide.columns[-1], **last.row()}
            reference = gaussian_share(width, _SHARES[_MAIN])
            yield {**fixed, "panel": SUMMARY, "quantity": _GAUSSIAN, "x": width, "value": reference}


def gaussian_share(width: float, beyond: float) -> float:
    """Return the share of vectors of independent normal entries whose ‖x‖² is farther than a share from its mean.

    Args:
        width: entries of a vector.
        beyond: ε.
    """
    return float(chdtr(width, width * (1 - beyond)) + chdtrc(width, width * (1 + beyond)))


def _plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a panel a stack: a line an arrangement and ε."""
    drawn = table[table["panel"] != SUMMARY]
    titles = {"stack": "Stream", "encoder": "Stream of the encoder", "decoder": "Stream of the decoder"}
    axes = beside(figure, drawn, titles, sharey=True)
    top = max(1.1 * max(finite(drawn)), 0.3)
    delta = limit("GL611", "delta")
    reference = pick(table, panel=SUMMARY, quantity=_GAUSSIAN)["value"]
    for stack, ax in axes.items():
        own = pick(drawn, panel=stack)
        for name in _SHARES:
            for arrangement in panels.in_order(own["variant"]):
                look = panels.LOOKS[arrangement] | {"linestyle": _DASHES[name]}
                drawing.measured(ax, pick(own, group=name, variant=arrangement), look)
        ax.axhline(delta, **_DELTA)
        if len(reference):
            ax.axhline(float(reference.iloc[0]), **drawing.DOTTED)
        drawing.counted_axis(ax, "block", start=1)
        ax.set_ylim(-0.02, top)
    figure.axes[0].set_ylabel("share of tokens")
    names, there = panels.in_order(drawn["variant"]), set(drawn["group"])
    keys = [drawing.entry(PAPER[name], **panels.LOOKS[name] | {"linestyle": "-"}) for name in names]
    shares = {name: f"farther than {share:g} of the mean" for name, share in _SHARES.items() if name in there}
    keys += [drawing.entry(text, color=drawing.THEORY, linestyle=_DASHES[name]) for name, text in shares.items()]
    keys.append(drawing.entry(f"the paper's δ = {delta:g} at 0.1", **_DELTA))
    if len(reference):
        keys.append(drawing.entry("independent entries, at 0.1", **drawing.DOTTED))
    drawing.legend(figure, keys)


_DELTA: dict[str, Any] = {"color": drawing.THEORY, "linewidth": 0.9, "linestyle": (0, (5, 2)), "zorder": 1.5}


def _judge(table: pd.DataFrame) -> Iterator[Finding]:
    delta = limit("GL611", "delta")
    for _, row in pick(table, quantity="last block").iterrows():
        reference = pick(table, quantity=_GAUSSIAN, variant=row["variant"]).iloc[0]
        yield NORMS.held(
            row,
            f"the norms in the {row['label']} stream concentrate, ε = 0.1 and δ = {delta:g}: after block {row['x']:.0f}"
            f" of the {row['stack'] or 'stack'}, {percent(row['value'])} of the tokens{span(row, percent)} are farther "
            f"than 0.1 from the mean; with independent entries of width {reference['x']:.0f} it would be "
            f"{percent(reference['value'])}",
            most=delta,
            outside="warn" if reference["x"] < limit("GL611", "width") else "fail",
            subject=str(row["label"]),
            expected=delta,
            threshold=f"at most {delta:g} of the tokens farther off than 0.1 of the mean",
            details={"width": float(reference["x"]), "independent entries": float(reference["value"])},
        )


ANALYSIS = question(
    NORMS,
    title="Do the norms concentrate?",
    question="Are the norms of the stream's vectors as near to their mean as Theorem 1 supposes?",
    reading=(
        "Share of the tokens whose squared norm, where a block has added its branches, is farther from the mean than "
        "0.1, 0.25 and 0.5 times the mean; by block, mean over seeds in its 95 % interval, of the shallowest "
        "encoder-decoder. Broken, the share that the paper measures for 0.1 at width 512; dotted, what independent "
        "normal entries would give at this width, the tails of χ². Both are for the full lines. The proof's own "
        "bound, exp(−d ε²/8), is far looser."
    ),
    needs={},
    compute=compute,
    plot=_plot,
    judges=(_judge,),
    nothing="No recording holds readings of the probe 'concentration'.",
    kinds=("init",),
    size=(6.7, 2.7),
    optional=True,
)
