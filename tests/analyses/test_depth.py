"""Where the stream is read, and to which block and group a parameter belongs."""

import numpy as np
import pandas as pd
import pytest

from analyses.depth import REST, WHOLE, blocks, gradient_by_block, parameter_groups, stream_by_depth
from gradlens.recording import Recording
from tests.analyses.planted import MATRICES, at_init, sites


def test_the_stream_of_post_ln_is_read_before_its_norm_resets_it() -> None:
    stream = stream_by_depth(at_init("post-ln", second_moment=lambda depth: 4.0, noise=0.0))
    assert stream.loc[stream["depth"] > 0, "second_moment"].tolist() == pytest.approx([4.0] * 32)


def test_the_stream_of_pre_ln_is_the_same_from_block_outputs_and_from_norm_inputs() -> None:
    moments = [1.0, 3.0, 5.0, 7.0, 9.0]
    places = sites("blocks", 4, "pre_branch")
    readers = [f"blocks.{block}.attention_norm" for block in range(4)] + ["final_norm"]
    inputs = pd.DataFrame({"step": 0, "site": readers, "tensor": "input", "rms": np.sqrt(moments)})
    watched_norms = Recording.from_tables({"kind": "init"}, sites=places[places["kind"] == "norm"], activations=inputs)
    watched_blocks = at_init("pre-ln", seeds=1, second_moment=lambda depth: 1.0 + 2.0 * depth, noise=0.0)
    for recording in (watched_norms, watched_blocks):
        stream = stream_by_depth(recording)
        assert stream["depth"].tolist() == [0, 1, 2, 3, 4]
        assert stream["second_moment"].tolist() == pytest.approx(moments)


@pytest.mark.parametrize("inside", ["in_branch", "qk"])
def test_a_norm_inside_a_branch_is_not_taken_for_one_that_reads_the_stream(inside: str) -> None:
    places = sites("blocks", 3, "pre_branch")
    norms = places[places["kind"] == "norm"]
    first = [{"site": f"blocks.{b}.attention.norm", "kind": "norm", "block": b, "placement": inside} for b in range(3)]
    both = pd.concat([pd.DataFrame(first), norms]).sort_values(["block"], kind="stable", ignore_index=True)
    readers = [f"blocks.{block}.attention_norm" for block in range(3)] + ["final_norm"]
    rms = dict.fromkeys(both["site"], 100.0) | {site: 1.0 + depth for depth, site in enumerate(readers)}
    inputs = pd.DataFrame({"step": 0, "site": [*rms], "tensor": "input", "rms": [*rms.values()]})
    recording = Recording.from_tables({"kind": "init"}, sites=both.assign(order=range(len(both))), activations=inputs)
    assert stream_by_depth(recording)["second_moment"].tolist() == [1.0, 4.0, 9.0, 16.0]


def test_stacks_are_kept_apart_and_blocks_counted_in_each() -> None:
    found = blocks(at_init("pre-ln", stacks=("encoder.blocks", "decoder.blocks"), blocks=3))
    assert found.groupby("stack")["block"].apply(list).to_dict() == {
        "decoder.blocks": [0, 1, 2], "encoder.blocks": [0, 1, 2],
    }  # fmt: skip


def test_the_tenth_block_is_not_taken_for_the_first() -> None:
    groups = parameter_groups(at_init("pre-ln", blocks=11, seeds=1))
    w2 = groups[groups["group"] == "ffn.w2"]
    assert w2["block"].tolist() == list(range(11))


def test_without_any_site_the_first_number_of_a_name_is_the_block() -> None:
    names = ["h.0.mlp.weight", "h.1.mlp.weight", "head.weight"]
    params = pd.DataFrame({"step": 0, "name": names, "grad_norm": [1.0, 2.0, 3.0]})
    gradients = gradient_by_block(Recording.from_tables({"kind": "init"}, params=params))
    whole = gradients[gradients["group"] == WHOLE]
    assert whole[["block", "grad_norm"]].to_numpy().tolist() == [[0, 1.0], [1, 2.0]]


def test_a_number_that_holds_a_weight_itself_is_a_layer_and_no_block() -> None:
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    params = pd.DataFrame({"step": 0, "name": names, "grad_norm": 1.0})
    assert blocks(Recording.from_tables({"kind": "attached"}, params=params)).empty


def test_norms_and_biases_are_the_rest_and_every_matrix_is_a_group() -> None:
    groups = parameter_groups(at_init("pre-ln", seeds=1))
    assert set(groups["group"]) == {*MATRICES, REST}
    assert set(groups.loc[groups["group"] == REST, "name"]) == {f"blocks.{b}.ffn_norm.weight" for b in range(4)}


def test_the_whole_block_is_the_root_of_the_sum_of_squares_of_its_groups() -> None:
    gradients = gradient_by_block(at_init("pre-ln", seeds=1))
    table = gradients[gradients["block"] == 2].set_index("group")["grad_norm"]
    assert table[WHOLE] == pytest.approx(np.sqrt((table.drop(WHOLE) ** 2).sum()))
