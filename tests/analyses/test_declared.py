"""An analysis reads what it declares: of a recording that holds nothing else it says the same."""

import pandas as pd
import pytest
import torch
from torch import nn

import gradlens
from analyses import ANALYSES
from gradlens.analysis import Analysis
from gradlens.analysis.contract import columns_read
from gradlens.recording import Recording, load
from tests.analyses.trained import mlp, points, sequences, transformer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run folders: two alike, and one of a Transformer whose attention was watched."""
    runs = [("one", mlp, points()), ("other", mlp, points()), ("attention", transformer, sequences())]
    made = []
    for name, build, batches in runs:
        torch.manual_seed(0)
        model, folder = build(), tmp_path_factory.mktemp("runs") / name
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        watch = ("norms", "blocks", "params", *["updates", "attention"][: 1 + (name == "attention")])
        with gradlens.attach(model, out=folder, watch=watch, optimizer=optimizer) as lens:
            for step in range(25):
                x, y = batches(step)
                loss = nn.functional.cross_entropy(model(x).flatten(0, -2), y.flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                lens.step(loss=loss)
        made.append(str(folder))
    return made


@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda analysis: analysis.name)
def test_an_analysis_reads_no_more_than_it_declares(analysis: Analysis, folders: list[str]) -> None:
    columns = columns_read(analysis.needs, analysis.uses)
    for paths in (folders[:2], folders[2:]):
        whole, declared = ([load(path) for path in paths], [load(path, columns) for path in paths])
        pd.testing.assert_frame_equal(
            analysis.compute(as_init(declared, analysis)), analysis.compute(as_init(whole, analysis))
        )


def as_init(recordings: list[Recording], analysis: Analysis) -> list[Recording]:
    """The same recordings, as of initialization where that is all that is asked."""
    if analysis.kinds != ("init",):
        return recordings
    return [type(r)({**r.meta, "kind": "init"}, r._stored, r.path, public=r._public, only=r._only) for r in recordings]
