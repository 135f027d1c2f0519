"""Fig. 3(a, b) of the paper: the gradients of the FFN's matrices by block, at initialization and after the warm-up."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses import drawing
from analyses.intervals import log_t_interval
from analyses.limits import limit
from analyses.papers import panels
from analyses.papers.findings import LARGER, MORE_SEEDS, Code, question
from analyses.papers.measured import W1, W2, depth, gradients, initial, of, profile
from analyses.papers.prediction import predicted
from analyses.papers.profiles import MEASURED, PREDICTED, curve, over, scale
from analyses.papers.xiong2020.paper import MORE_NETWORKS, OWN_THEORY, PAPER, XIONG, of_paper
from analyses.papers.xiong2020.runs import warm_up_runs
from analyses.tables import SUMMARY, first, number, pick, span, tidy
from gradlens.analysis import Finding
from gradlens.recording import Recording

_NAME = "xiong2020_gradients_by_block"
_REFERENCE = f"{XIONG}, Fig. 3(a, b) and appendix F"
BY_BLOCK = Code(
    code="GL605",
    analysis=_NAME,
    explanation=(
        "Gradients grow with the block in Post-LN. At initialization the gradient of the FFN's output matrix is "
        "larger in the last block of a Post-LN decoder than in its first, by a factor that grows exponentially with "
        "depth; in a Pre-LN decoder all blocks are alike to within a factor of two. In a Post-LN encoder it is flat: "
        "there the paper's bound declines, and the exact computation does not."
    ),
    causes=(
        "Cross-attention: its gradient reaches the decoder's stream through the queries alone.",
        "Another depth, width or vocabulary than the limits are for: the decline is one factor a block.",
        "A branch that is scaled or initialized otherwise than in the paper.",
    ),
    remedies=(MORE_NETWORKS, OWN_THEORY),
    reference=_REFERENCE,
)
AFTER_WARM_UP = Code(
    code="GL606",
    analysis=_NAME,
    explanation=(
        "Gradients are small after the warm-up. In a Post-LN network that was trained with the whole warm-up, the "
        "gradient of the last decoder block's output matrix just after the warm-up, over what it was at the first "
        "step. The paper shows it as very small, so that the full learning rate no longer does harm."
    ),
    expected="very small",
    expected_from="the paper, Fig. 3(a, b), in words",
    causes=(
        "Norms of single batches: as the mean gradient falls, what is left is the noise of the batch.",
        "A warm-up too short for this network: the loss has hardly fallen where it ends.",
        "A network that has not learned, because its learning rate is too high for it.",
    ),
    remedies=(LARGER, MORE_SEEDS),
    reference=_REFERENCE,
)
#: Arrangement and stack to the names of the limits in GL605, and what the paper has for it.
_CASES = {
    ("post-ln", "decoder"): (
        ("decoder_post_least", "decoder_post_most"),
        "grows with the block",
        "grows with the block (Fig. 3)",
    ),
    ("pre-ln", "decoder"): (
        ("decoder_pre_least", "decoder_pre_most"),
        "is about the same in all blocks",
        "about the same in all blocks (Fig. 3)",
    ),
    ("post-ln", "encoder"): (
        ("encoder_post_least", "encoder_post_most"),
        "is about the same in all blocks",
        "a bound that falls by √(2/3) a block towards the input; exactly computed, it is flat",
    ),
}

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
            measured, said = profile(table, stack, group), theory.gradients.get((stack, group))
            yield from over(measured, **fixed, quantity=MEASURED)
            yield from curve(said, **fixed, quantity=PREDICTED)
            summary = {**fixed, "panel": SUMMARY, "unit": "", "x": len(measured.columns)}
            last = log_t_interval(measured.iloc[:, -1] / measured.iloc[:, 0])
            yield {**summary, "quantity": "last/first", **last.row()}
            ratio = {} if said is None else {"value": said.iloc[-1] / said.iloc[0]}
            yield {**summary, "quantity": "last/first, theory", **ratio}


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
                yield from over(wide, **fixed)
            last = [after[group].iloc[-1] / first[group].iloc[-1] for first, after in ends]
            yield {**who, "panel": SUMMARY, "quantity": "after/first", "group": group, **log_t_interval(last).row()}


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


def _plot(table: pd.DataFrame, figure: Figure) -> None:
    """Draw a row a matrix; encoder and decoder at initialization, and the decoder of the trained networks."""
    drawn = table[table["panel"] != SUMMARY]
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
            scale(ax, own, log_from=1.5)
            drawing.counted_axis(ax, "block" if name == "W2" else "", start=1)
            ax.set_title(f"{name}, {titles[panel]}")
        row[0].set_ylabel("gradient norm")
    keys = panels.entries(drawn[drawn["panel"] != "trained"])
    if "trained" in shown:
        keys += [drawing.entry(f"Post-LN, {name}", **look) for name, look in _LOOKS.items()]
    drawing.legend(figure, keys, columns=5)


def _draw_trained(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw both profiles of every learning rate; the higher ones broken."""
    for dashes, (_, own) in zip(("-", (0, (4, 1.5)), (0, (1, 1))), rows.groupby("schedule", sort=False), strict=False):
        for quantity, look in _LOOKS.items():
            drawing.measured(ax, pick(own, quantity=quantity), look | {"linestyle": dashes})


def _by_block(table: pd.DataFrame) -> Iterator[Finding]:
    for (arrangement, stack), (limits, says, paper) in _CASES.items():
        own, name = pick(table, variant=arrangement, stack=stack, group=W2), PAPER[arrangement]
        row, theory = (first(pick(own, quantity=q)) for q in ("last/first", "last/first, theory"))
        if row is None:
            continue
        least, most = (limit("GL605", end) for end in limits)
        said = None if theory is None or pd.isna(theory["value"]) else float(theory["value"])
        also = "" if said is None else f"; theory gives {number(said)}"
        yield BY_BLOCK.held(
            row,
            f"the gradient of W2 in the {name} {stack} {says}: the last of {row['x']:.0f} blocks has "
            f"{number(row['value'])} times the first one's{span(row)}{also}",
            least=least,
            most=most,
            subject=f"{name} {stack}",
            expected=paper if said is None else said,
            expected_from="the paper" if said is None else f"exact theory for this network; the paper: {paper}",
            threshold=f"{name} {stack}: {least:g} to {most:g}",
        )


def _after(table: pd.DataFrame) -> Iterator[Finding]:
    most = limit("GL606", "most")
    for _, row in pick(table, quantity="after/first", group=W2).iterrows():
        yield AFTER_WARM_UP.held(
            row,
            f"{row['label']}: after the warm-up the gradient of the last decoder block's W2 is "
            f"{number(row['value'])} times that of the first step{span(row)}",
            most=most,
            subject=str(row["label"]),
            threshold=f"at most {most:g} times the first step's",
        )


ANALYSIS = question(
    BY_BLOCK,
    AFTER_WARM_UP,
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
    plot=_plot,
    judges=(_by_block, _after),
    nothing="No recording holds the gradients of an encoder-decoder.",
    kinds=("init", "training"),
    size=(6.7, 4.1),
    optional=True,
)
