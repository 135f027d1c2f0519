"""The columns of the table ``outputs``, but for ``step``: which loss the gradient at a model's output is of.

Symbols: z is the output and g = dL/dz, in rows of C classes; w_i the weight of row i in the loss, where g_i is w_i d_i
for the d_i of a cross-entropy. Sums are over sampled rows, in each of the first 32 recorded steps and then in every
fourth of them.
"""

import numpy as np

from gradlens.recording.column import Column, key, ratio, summed

STORED_OUTPUTS: tuple[Column, ...] = (
    key("site", "string", "the module that was called: the model itself (empty), or one of its parts"),
    Column("kind", "string", "loss whose gradient came: softmax (cross-entropy), twice (of softmax taken for "
           "logits), binary (cross-entropy of each entry); empty where none of these fits"),
    Column("classes", "int", "C: entries in a row of the output", merge="max"),
    Column("passes", "int", "backward passes that came to the output", merge="sum"),
    Column("vectors", "int", "rows of the output", merge="sum"),
    Column("samples", "int", "entries of its first dimension", merge="sum"),
    Column("sampled", "int", "rows that were looked at, at most 64 a pass; of binary, entries", merge="sum"),
    summed("finite", "those that are finite"),
    summed("live", "those of them whose gradient is not exactly 0, or only by rounding"),
    summed("grad_squares", "Σ ‖g‖² over them", "(loss/output)²"),
    Column("grad_max", "float", "max ‖g‖ of a row", "loss/output", merge="max"),
    Column("row_sum", "float", "max over rows of |Σ_j g_j|, over that of Σ_j |g_j|", merge="max"),
    summed("probabilities", "rows that are probabilities: no entry below 0, their sum 1"),
    summed("log_probabilities", "rows whose exponentials are"),
    summed("asked", "rows that can tell whether the kind of loss fits"),
    summed("fitted", "those that it fits"),
    summed("negative", "those of them in which it is maximized"),
    summed("weighed", "passes in which all rows have one weight"),
    summed("weights", "Σ over them of that weight times the rows with a gradient", "loss/row"),
    summed("row_weights", "Σ over them of that weight"),
    summed("labels", "rows whose label is known"),
    summed("label_nats", "Σ −ln of the labels' probabilities, as the labels of earlier steps foretell them: "
         "(count + ½) / (all + C/2)", "nats"),
    summed("cross_entropy", "Σ −ln softmax(output) at the label", "nats"),
    summed("correct", "rows whose largest entry is the label"),
    summed("input_n", "finite entries of the input that were looked at, in the first recorded steps"),
    summed("input_total", "Σ x over them"),
    summed("input_squares", "Σ x² over them"),
    summed("input_nonzero", "those that are not 0"),
    Column("input_absmax", "float", "max |x|", merge="max"),
)  # fmt: skip

DERIVED_OUTPUTS: tuple[Column, ...] = (
    *STORED_OUTPUTS[:6],
    Column("sampled", "int", "rows that were looked at, at most 64 a pass; of binary, entries"),
    Column("ignored", "float", "share of them whose gradient is exactly 0, but for rounding",
           formula=lambda s: 1.0 - ratio(s["live"], s["finite"])),
    Column("grad_row_norm", "float", "root mean square of ‖g‖ over the others", "loss/output",
           formula=lambda s: np.sqrt(ratio(s["grad_squares"], s["live"]))),
    Column("grad_row_max", "float", "max ‖g‖ of a row", "loss/output", formula=lambda s: s["grad_max"]),
    Column("row_sum", "float", "max over rows of |Σ_j g_j|, over that of Σ_j |g_j|: 0 behind a softmax"),
    Column("fitted", "float", "share of the rows that the kind of loss fits",
           formula=lambda s: ratio(s["fitted"], s["asked"])),
    Column("row_weight", "float", "weight of a row in the loss times the rows with a gradient: 1 of a mean over "
           "them, their number of a sum; below 0 where the loss is maximized. The mean over passes; missing where "
           "rows differ in weight", formula=lambda s: ratio(s["weights"], s["weighed"])),
    Column("single_weight", "float", "weight of a row in the loss: 1 of a sum over them",
           formula=lambda s: ratio(s["row_weights"], s["weighed"])),
    Column("negative", "float", "share of the rows that fit in which the loss is maximized",
           formula=lambda s: ratio(s["negative"], s["fitted"])),
    Column("probabilities", "float", "share of the rows of the output that are probabilities",
           formula=lambda s: ratio(s["probabilities"], s["finite"])),
    Column("log_probabilities", "float", "share of those whose exponentials are",
           formula=lambda s: ratio(s["log_probabilities"], s["finite"])),
    Column("labels", "float", "rows whose label the gradient names"),
    Column("label_nats", "float", "mean over them of −ln of the label's frequency in earlier steps: the entropy "
           "of the labels, once enough of them were seen", "nats",
           formula=lambda s: ratio(s["label_nats"], s["labels"])),
    Column("sampled_loss", "float", "mean over them of the cross-entropy", "nats",
           formula=lambda s: ratio(s["cross_entropy"], s["labels"])),
    Column("sampled_accuracy", "float", "share of them whose largest entry is the label",
           formula=lambda s: ratio(s["correct"], s["labels"])),
    Column("input_mean", "float", "mean of the input's entries, in the first recorded steps",
           formula=lambda s: ratio(s["input_total"], s["input_n"])),
    Column("input_rms", "float", "their root mean square",
           formula=lambda s: np.sqrt(ratio(s["input_squares"], s["input_n"]))),
    Column("input_nonzero", "float", "share of them that are not 0",
           formula=lambda s: ratio(s["input_nonzero"], s["input_n"])),
    Column("input_absmax", "float", "max |x| of them"),
)  # fmt: skip
