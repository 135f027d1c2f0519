"""Who works on jobs: a worker that is killed is replaced, none outlives its parent, and clusters give the same."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from gradlens.errors import GradlensError
from gradlens.lab.operands.user_model import UserModel
from gradlens.lab.runs.executors import Dask, Executor, Slurm, named
from gradlens.lab.runs.jobs import Run
from gradlens.lab.runs.runner import run_jobs
from tests.lab.runs.test_runner import MANIFEST, planned


@dataclass(frozen=True, kw_only=True)
class Killed(Run):
    """A run whose worker is killed so many times before it goes on."""

    times: int

    def record(self, folder, on_progress):
        tries = folder.parent / f"{folder.name}-tries"
        tries.parent.mkdir(parents=True, exist_ok=True)
        tries.write_text(tries.read_text() + "." if tries.exists() else ".")
        if len(tries.read_text()) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().record(folder, on_progress)


def killed(times: int) -> list[Run]:
    first, *others = planned(norms=("layernorm",))
    return [Killed(**vars(first), times=times), *others]


def test_a_job_whose_worker_was_killed_is_begun_anew_and_gives_what_it_would_have(tmp_path):
    alone = run_jobs(planned(norms=("layernorm",)), tmp_path / "a", MANIFEST, at_a_time=1)
    again = run_jobs(killed(1), tmp_path / "b", MANIFEST, at_a_time=2)
    assert_same(alone, again)


def test_a_job_that_kills_its_workers_is_named_and_the_others_are_kept(tmp_path):
    with pytest.raises(GradlensError, match=r"'lm, layernorm, seed 0'.* killed 3 times\. .*--jobs"):
        run_jobs(killed(9), tmp_path / "g", MANIFEST, at_a_time=2)


PARENT = """
import sys
from pathlib import Path
from gradlens.lab.runs.runner import run_jobs
from tests.lab.runs.test_runner import MANIFEST, planned
if __name__ == "__main__":
    run_jobs(planned(steps=100_000), Path(sys.argv[1]), MANIFEST, at_a_time=2)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc for the children of a process")
def test_no_worker_outlives_the_process_that_began_it(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py"), str(tmp_path / "g")],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(list((tmp_path / "g").glob("runs/lm/*/*/segments/steps*"))) >= 2, 120)
        workers = children(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    assert len(workers) >= 2
    wait_for(lambda: not any(map(runs, workers)), 10)


def children(parent: int) -> list[int]:
    status = {int(path.parent.name): path.read_text() for path in Path("/proc").glob("[0-9]*/stat")}
    # After the name in brackets come the state and the parent.
    return [pid for pid, text in status.items() if text.rpartition(")")[2].split()[1] == str(parent)]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(true, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_model_of_the_users_travels_as_the_text_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text("from torch import nn\ndef build(width: int = 4): return nn.LayerNorm(width)\n")
    monkeypatch.chdir(tmp_path)
    model = UserModel.load("own.py:build", ["width=8"]).in_full()
    sent = pickle.dumps(model)
    (tmp_path / "own.py").write_text("from torch import nn\ndef build(width: int = 4): return nn.RMSNorm(width)\n")
    arrived = pickle.loads(sent)
    assert (arrived.label, arrived.arguments) == (model.label, {"width": 8})
    assert type(arrived.build(8)).__name__ == "RMSNorm"


@pytest.fixture(params=["slurm", "dask"])
def cluster(request, tmp_path):
    """An executor of each kind with workers of this machine: submitit's local cluster, a scheduler of Dask."""
    if request.param == "slurm":
        pytest.importorskip("submitit")
        yield Slurm(tmp_path, cluster="local")
        return
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as workers:
        yield Dask(workers.scheduler_address)


def test_a_cluster_gives_what_this_process_gives(tmp_path, cluster: Executor):
    runs = planned(norms=("none",))
    alone = run_jobs(runs, tmp_path / "a", MANIFEST, at_a_time=1)
    assert_same(alone, run_jobs(runs, tmp_path / "b", MANIFEST, executor=cluster))


def test_what_goes_wrong_on_a_cluster_is_an_error_that_names_the_run(tmp_path, cluster: Executor):
    runs = [dataclasses.replace(run, size={**run.size, "heads": 3}) for run in planned(norms=("none",))]
    with pytest.raises(GradlensError, match=r"lm, none, seed \d: heads must divide width"):
        run_jobs(runs, tmp_path / "g", MANIFEST, executor=cluster)


@pytest.mark.parametrize(("text", "said"), [("kubernetes", "takes local, slurm, or dask"), ("dask", "takes local")])
def test_an_unknown_executor_is_refused(tmp_path, text, said):
    with pytest.raises(GradlensError, match=said):
        named(text, tmp_path, None)


def assert_same(these, those) -> None:
    for one, other in zip(these, those, strict=True):
        assert one.label == other.label
        left, right = (recording.steps.drop(columns="seconds") for recording in (one, other))
        pd.testing.assert_frame_equal(left, right, rtol=1e-4, atol=1e-6)
