"""Norms of torch and of transformers, from the table that reports/norms publishes: read rightly, or named."""

import importlib
from dataclasses import replace

import pytest
import torch

from tests.norms_table.formula import DisprovedError
from tests.norms_table.judge import NORMS, SHARES, _compared, names
from tests.norms_table.packages import PACKAGES

pytest.importorskip("transformers", reason='needs transformers: pip install -e ".[hf]"')

ENTRIES = (*PACKAGES["torch"], *PACKAGES["transformers"])


def every(entries):
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name.rpartition(".")[2])


@every([entry for entry in ENTRIES if entry.norm and entry.plain])
def test_a_norm_that_scales_and_shifts_is_recorded_as_autograd_in_float64_has_it(entry):
    verdict = entry.judged()
    assert verdict.outcome == "right", verdict.said


@every([entry for entry in ENTRIES if entry.norm and not entry.plain])
def test_a_norm_that_does_more_is_recorded_rightly_or_named(entry):
    verdict = entry.judged()
    assert verdict.outcome in ("right", "named"), verdict.said


@every([entry for entry in ENTRIES if not entry.norm])
def test_nothing_is_said_of_what_is_no_norm(entry):
    verdict = entry.judged()
    assert verdict.outcome == "right", verdict.said


@pytest.mark.parametrize("model_type", ["bert", "t5", "gemma2", "bamba", "qwen3_next", "olmo", "poolformer"])
def test_a_family_has_no_norm_that_is_read_wrongly_or_missed(model_type):
    found = importlib.import_module("tests.norms_table.families").family(model_type)
    assert found["outcome"] in ("right", "named"), found["others"]
    assert found["sites"] > 4


@pytest.mark.parametrize(
    "change", [{"eps": 0.1}, {"centered": False}, {"axes": (1,)}, {"gain": None}, {"unbiased": True}]
)
def test_a_formula_that_is_not_the_class_is_disproved(change):
    entry = next(entry for entry in ENTRIES if entry.path == "torch.nn.LayerNorm")
    with pytest.raises(DisprovedError):
        replace(entry, formula=replace(entry.formula, **change)).judged()


def test_a_number_that_is_off_or_missing_or_too_much_is_seen():
    numbers = {"recentering": 0.1, "rescaling": 0.2, "kept": 0.7, "inv_sigma": 2.0, "grad_output_norm": 3.0}
    row = {**dict.fromkeys((*SHARES, *NORMS)), **numbers}
    assert _compared(row, numbers) == ""
    assert _compared({**row, "kept": 0.70005}, numbers) == ""
    assert _compared({**row, "kept": 0.7002}, numbers).startswith("kept")
    assert _compared({**row, "inv_sigma": 2.003}, numbers).startswith("inv_sigma")
    assert _compared({**row, "rescaling": float("nan")}, numbers).startswith("rescaling")
    assert _compared({**row, "grad_input_norm": 1.0}, numbers).startswith("grad_input_norm")


def test_a_sentence_names_a_module_by_its_whole_path():
    assert names("They are not recorded: subject. Name their axes.", "subject")
    assert names("Nothing is recorded at subject: why.", "subject")
    assert not names("Normalizations ran as functions: subject.bn: F.batch_norm.", "subject")
    assert not names("Nothing is recorded at other.subject: why.", "subject")


def test_every_entry_is_named_once_and_has_a_shape_unequal_in_every_dimension_or_says_so():
    for entries in PACKAGES.values():
        names = [entry.name for entry in entries]
        assert len(set(names)) == len(names)
        for entry in entries:
            assert len(set(entry.shape)) == len(entry.shape) or "equal sizes" in entry.note, entry.name


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
