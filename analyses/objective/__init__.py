"""What the loss asks of the output, and what goes in: weights of rows, softmax, sign, labels, the input's scale."""

from analyses.objective.findings import CODES, judge
from analyses.objective.numbers import compute
from analyses.objective.summary import show
from gradlens.analysis import Analysis

ANALYSIS = Analysis(
    name="objective",
    title="Loss and output",
    question="Does the loss that is minimized ask what it should of the output?",
    reading=(
        "The gradient at the model's output tells of which loss it is. Weight of a row: its factor in the loss times "
        "the rows of a pass, 1 where the loss is their mean. Labels: the entropy of those that the gradient names, as "
        "the frequencies of earlier steps foretell them; loss: the cross-entropy of the same rows. Both are means over "
        "the end of the run. Input: the root mean square of its entries that are not 0, in the first recorded steps."
    ),
    needs={"outputs": ("step", "site", "kind", "row_weight"), "steps": ("step",)},
    uses={"params": ("step", "name", "numel", "grad_norm", "weight_norm", "update_norm")},
    compute=compute,
    show=show,
    judge=judge,
    kinds=("training", "attached"),
    codes=CODES,
)
