"""Several processes that train together write one recording: what one process with all the data would have written.

That the lens leaves their training bit-equal is asserted inside the processes.
"""

import pandas as pd
import pytest
import torch.distributed
from torch import nn
from torch.distributed.tensor import Replicate, Shard

import gradlens
from gradlens.lens.taps.norm_input import split
from gradlens.recognition import TORCH_KINDS
from gradlens.recognition.kinds import NormKind
from tests.lens.processes import SHARES, WAYS, alone, micro_batches_without_sync, together
from tests.recognition.shapes import Chunks

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")

TABLES = {"sites", "norms", "activations", "params", "steps"}
#: What cannot be whole: outputs of blocks are plain tensors there, parts of a sequence that nothing tells from whole
#: ones; gradients of the norms' parameters are sums over processes that nobody took when backward ended.
PARTIAL = {"sequence parallel": {"activations", "params", "steps"}}
#: Of a matrix whose rows are divided between processes none knows whether a row's gradient is 0.
ROWS = ["rows", "dead_rows", "idle_rows"]


def plain(recording: gradlens.Recording, table: str) -> pd.DataFrame:
    """A table without what DDP puts before names, in an order of its own."""
    frame = recording.table(table).drop(columns=["seconds", "order"], errors="ignore")
    if "rows" in frame:
        frame.loc[frame["name"].str.endswith("down.weight"), ROWS] = float("nan")
    names = [name for name in ("site", "name") if name in frame]
    frame[names] = frame[names].replace("^module.", "", regex=True)
    keys = [key for key in ("step", "site", "name", "tensor", "call") if key in frame]
    return frame.sort_values(keys).reset_index(drop=True)


@pytest.mark.parametrize("way", WAYS)
def test_processes_together_record_what_one_with_all_the_data_would(way, tmp_path):
    shares = (sum(SHARES),) if way in ("tensor parallel", "sequence parallel") else SHARES
    expected, recording = alone(tmp_path / "alone", shares), together(way, tmp_path / "run")
    assert recording.meta["processes"]["recorded"] == WAYS[way][0]
    assert not (recording.path / "segments").exists(), "the last one to close leaves Parquet files"
    got = recording.over_processes()
    for table in sorted(TABLES - PARTIAL.get(way, set())):
        pd.testing.assert_frame_equal(plain(got, table), plain(expected, table), rtol=1e-9, atol=1e-12)
    if way == "sequence parallel":
        params, known = plain(got, "params"), plain(expected, "params")
        reduced = params["grad_norm"].notna()
        assert set(params.loc[~reduced, "name"].str.extract(r"(norm|^2)")[0]) == {"norm", "2"}
        pd.testing.assert_frame_equal(params[reduced], known[reduced], rtol=1e-9)
        assert got.steps["grad_norm"].isna().all(), "a norm without some of its terms would be too small"
        assert any("sums over processes" in problem for problem in got.meta["audit"]["problems"])


def test_a_lens_on_one_process_alone_waits_for_none_and_the_report_says_what_is_missing(tmp_path):
    recording = together("fsdp", tmp_path / "run", attached=(0,))
    assert recording.steps["step"].tolist() == [0, 1]
    (finding,) = [f for f in gradlens.compare([recording]).findings if "processes recorded" in f.claim]
    assert finding.status == "warn"
    assert "only 1 of 2 processes recorded" in finding.claim


def test_a_process_that_dies_takes_nothing_from_the_others(tmp_path):
    recording = together("ddp", tmp_path / "run", kill=True)
    assert recording.meta["status"] == "complete"
    assert recording.norms.groupby(["step", "rank"]).size().tolist() == [4] * 4


def test_gradients_that_wait_in_fsdp_for_an_exchange_count(tmp_path):
    """Micro-batches without gradient sync leave nothing in the parameters; the last one brings what all gave."""
    torch.multiprocessing.spawn(micro_batches_without_sync, (tmp_path,), nprocs=1)
    got, expected = (gradlens.load(tmp_path / name) for name in ("waiting", "plain"))
    for table in ("norms", "activations"):
        pd.testing.assert_frame_equal(plain(got, table), plain(expected, table), rtol=1e-9)
    assert got.steps["grad_norm"].tolist() == pytest.approx(expected.steps["grad_norm"].tolist(), rel=1e-9)
    assert got.meta["audit"]["setting"]["passes"] == [3, 3]
    assert got.meta["audit"]["passes"] == expected.meta["audit"]["passes"]


#: A norm, and sizes of an input.
NORMS = {
    "LayerNorm": (nn.LayerNorm(16), (4, 6, 16)),
    "LayerNorm over two axes": (nn.LayerNorm((6, 16)), (4, 6, 16)),
    "BatchNorm": (nn.BatchNorm1d(6), (4, 6, 16)),
    "GroupNorm": (nn.GroupNorm(1, 6), (4, 6, 16)),
    "InstanceNorm": (nn.InstanceNorm1d(6), (4, 6, 16)),
    "chunks": (Chunks(), (4, 6, 16)),
    "chunks of one vector": (Chunks(), (16,)),
}


@pytest.mark.parametrize(("name", "axis"), [(name, axis) for name in NORMS for axis in range(len(NORMS[name][1]))])
def test_vectors_are_split_where_what_one_process_computes_depends_on_what_another_has(name, axis):
    norm, shape = NORMS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other.narrow(axis, 2, shape[axis] - 2).mul_(3)
    depends = not torch.allclose(norm(x).narrow(axis, 0, 2), norm(other).narrow(axis, 0, 2), atol=1e-3)
    kind = NormKind(name="chunks", layout="chunks", groups=4) if name.startswith("chunks") else TORCH_KINDS[type(norm)]
    x.placements = (Replicate(), Shard(axis))
    # The gain of an InstanceNorm would have to be split like its channels: it is left alone.
    assert split(kind, norm, x) == (depends or (name == "InstanceNorm" and axis == 1))
    x.placements = (Replicate(), Replicate())
    assert not split(kind, norm, x)


def test_a_synchronized_batch_norm_of_one_process_alone_is_recorded_as_a_batch_norm():
    def numbers(norm):
        with gradlens.attach(norm) as lens:
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
            norm(x).pow(3).sum().backward()
            lens.step()
        assert lens.audit().unsupported == {}
        return lens.recording.norms.select_dtypes("number").to_numpy()

    assert numbers(nn.SyncBatchNorm(6)) == pytest.approx(numbers(nn.BatchNorm1d(6)), rel=1e-5, abs=1e-9)


def test_a_synchronized_batch_norm_splits_its_vectors_as_long_as_it_trains():
    norm, x = nn.SyncBatchNorm(6), torch.randn(4, 6)
    assert split(TORCH_KINDS[nn.SyncBatchNorm], norm, x)
    assert not split(TORCH_KINDS[nn.SyncBatchNorm], norm.eval(), x)
