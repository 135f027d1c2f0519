import re

import pytest

from gradlens import load
from tests.cli.conftest import TINY, read_json

SEEDS = ["--seeds", "2"]


def test_inspect_lists_every_norm_with_its_place_and_shares(gradlens):
    result = gradlens("inspect", "post-ln", *TINY, *SEEDS, "--json")
    sites = {site["site"]: site for site in read_json(result)["sites"]}
    assert list(sites) == [f"blocks.{i}.{norm}" for i in (0, 1) for norm in ("attention_norm", "ffn_norm")]
    for site in sites.values():
        assert site["placement"] == "post_add"
        assert site["recentering"] + site["rescaling"] + site["kept"] == pytest.approx(1, abs=1e-5)


def test_the_text_holds_what_the_json_holds(gradlens):
    text = gradlens("inspect", "pre-ln/rmsnorm", *TINY, *SEEDS).stdout
    assert "blocks.1.ffn_norm" in text
    assert "pre_branch" in text
    assert "final_norm" in text
    assert "Nothing was missed." in text
    assert "\nFindings\n" in text
    found = read_json(gradlens("inspect", "pre-ln/rmsnorm", *TINY, *SEEDS, "--json"))["findings"]
    assert {one["code"] for one in found if one["status"] != "not applicable"} <= {*re.findall(r"GL\d{3}", text)}
    assert {"GL001", "GL101"} <= {one["code"] for one in found}


@pytest.mark.parametrize("spec", ["models.py:build", "models:build"])
def test_a_model_of_the_users_is_found_by_file_and_by_module(gradlens, models, spec):
    result = gradlens("inspect", spec, *SEEDS, "--json", "-m", "width=16")
    found = read_json(result)
    assert found["model"]["parameters"] == 4 * 16 + 16 + 2 * 16
    assert [site["width"] for site in found["sites"]] == [16]
    assert "a line that a user's module prints" in result.stderr


@pytest.mark.parametrize(
    ("operand", "options", "origin"),
    [
        ("models.py:with_loss", [], "<lambda>"),
        ("models.py:labels_in_the_batch", [], "<lambda>"),
        ("models.py:build", [], "random direction"),
        ("models.py:without_batch", ["--batch", "models:batch"], "random direction"),
    ],
)
def test_the_report_says_which_loss_was_taken(gradlens, models, operand, options, origin):
    assert origin in gradlens("inspect", operand, *SEEDS, *options).stdout


def test_weights_and_batches_differ_from_seed_to_seed_and_repeat_with_it(gradlens, models):
    gradlens("inspect", "models.py:build", "--seeds", "2", "--out", "two")
    gradlens("inspect", "models.py:build", "--seeds", "1", "--seed", "1", "--out", "second")
    losses = list(load("two").steps["loss"])
    assert losses[0] != losses[1]
    assert list(load("second").steps["loss"]) == losses[1:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere:build"], "No module named 'nowhere'"),
        (["nowhere.py:build"], "there is none at nowhere.py"),
        (["models.py"], "file.py:build"),
        (["models.py:biuld"], "Did you mean build"),
        (["models.py:number"], "cannot be called"),
        (["models.py:model"], "def build(): return model"),
        (["models.py:raises"], "RuntimeError: the first line (models.py, line 49)"),
        (["models.py:returns_number"], "must return a torch.nn.Module"),
        (["models.py:needs"], "-m depth=VALUE"),
        (["models.py:without_batch"], "--batch pkg.mod:fn"),
        (["models.py:wrong_batch"], "float32 tensor [3, 9]"),
        (["models.py:called_with_the_model"], "called as loss_fn(output, batch), with what the model returned"),
        (["models.py:misspelt_loss"], "NameError: name 'outptu' is not defined (models.py, line 19)"),
        (["models.py:labels_beside"], "labels, goes there too, as an argument that forward need not use"),
        (["models.py:build", "-m", "widht=3"], "Did you mean width"),
        (["models.py:build", "-m", "width=wide"], "must be of type int"),
        (["models.py:build", "-m", "width"], "key=value"),
        (["pre-ln", "-m", "width=3"], "for a model of your own"),
        (["runs/none"], "there is none at runs/none"),
        (["pre-ln", "--heads", "5"], "heads must divide width"),
        (["pre-ln", "--device", "abacus"], "'auto' or 'cpu'"),
    ],
)
def test_what_cannot_be_inspected_is_said_in_one_line_with_what_to_do(gradlens, models, arguments, said):
    result = gradlens("inspect", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "the second line" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("source", ["import nowhere", "def build(:", "raise SystemExit(0)", "1 / 0"])
def test_a_file_that_does_not_import_is_named_with_the_reason(gradlens, folder, source):
    (folder / "broken.py").write_text(source)
    for spec in ("broken.py:build", "broken:build"):
        result = gradlens("inspect", spec)
        assert result.exit_code == 2
        assert f"{spec} must import" in result.stderr
        assert "broken.py, line 1" in result.stderr


def test_a_model_without_norms_is_nothing_to_look_at(gradlens, models):
    result = gradlens("inspect", "models.py:build", "-m", "norm=no")
    assert result.exit_code == 5
    assert "register_norm" in result.stderr


def test_a_recording_can_be_inspected_but_not_several(gradlens, finished):
    assert "post_add" in gradlens("inspect", finished / "runs" / "post-ln" / "init").stdout
    result = gradlens("inspect", finished)
    assert result.exit_code == 2
    assert "Name one of them" in result.stderr


def test_probes_say_which_learning_rate_the_model_can_take(gradlens):
    result = gradlens("inspect", "pre-ln", *TINY, *SEEDS, "--probes", "--lr", "1e-3", "--json", "--out", "probed")
    found = read_json(result)
    limit = found["readings"][0]
    assert (limit["probe"], limit["name"], limit["unit"]) == ("learning_rate", "limit of adam", "1/step")
    assert 0 < limit["low"] <= limit["value"] <= limit["high"]
    assert min(limit["forward"], limit["backward"]) > 0
    rates = [r["value"] for r in found["readings"] if r["probe"] in ("learning_rate", "trial")]
    assert found["answer"]["learning_rate"] == pytest.approx(min(rates) / 2)
    assert "The first steps are stable without a warm-up at the planned 0.001" in found["answer"]["text"]
    assert {r["site"] for r in found["readings"] if r["probe"] == "concentration"} == {"blocks.0", "blocks.1"}
    text = gradlens("inspect", "pre-ln", *TINY, "--seeds", "1", "--probes", "--lr", "1e-3").stdout
    command = (
        "gradlens compare pre-ln --lr 0.001 --layers 2 --width 16 --heads 2 --batch-size 2 --length 16 --device cpu"
    )
    assert text.rstrip().endswith(f"With a warm-up and without: {command}")
    rows = load("probed").probes
    assert list(rows["step"]) == [0] * len(found["readings"])  # of the first seed alone
    assert list(rows["value"]) == pytest.approx([r["value"] for r in found["readings"]])


def test_the_text_holds_the_readings_their_cost_and_the_answer(gradlens):
    text = gradlens("inspect", "post-ln", *TINY, *SEEDS, "--probes", "--optimizer", "sgd", "--lr", "1e3").stdout
    assert "forward  backward" in text
    assert "limit of sgd after 10 steps" in text
    assert "Lower the rate: the planned 1000 is more than trials survived" in text
    assert "gradlens compare" not in text  # it trains with Adam
    assert "When they mislead" in text


def test_a_users_model_without_blocks_and_with_one_batch_is_probed_too(gradlens, models):
    result = gradlens("inspect", "models.py:with_loss", "--seeds", "1", "--probes", "--json")
    found = read_json(result)
    assert {r["probe"] for r in found["readings"]} >= {"trial", "critical_step", "sharpness", "amplification"}
    assert set(found["not_read"]) == {"block_jacobian", "concentration"}  # it has no blocks


def test_without_a_loss_no_learning_rate_is_named_and_the_rest_is_printed_and_kept(gradlens, models):
    result = gradlens("inspect", "models.py:build", "--seeds", "1", "--probes", "--out", "kept")
    assert result.exit_code == 0
    assert "Not read:\n- learning rate: A learning rate needs a loss that training lowers" in result.stdout
    assert "the loss is the output's product with a fixed random direction" in result.stdout
    assert "Audit" in result.stdout
    assert {"sharpness", "amplification"} <= set(load("kept").probes["probe"])


def test_a_variant_without_norms_is_one_to_compare_or_to_probe(gradlens):
    result = gradlens("inspect", "rezero", *TINY, *SEEDS)
    assert result.exit_code == 5
    assert "none by design" in result.stderr
    assert "gradlens compare pre-ln rezero" in result.stderr
    assert "register_norm" not in result.stderr
    probed = gradlens("inspect", "rezero", *TINY, *SEEDS, "--probes")
    assert probed.exit_code == 0
    assert "0 norms" in probed.stdout
    assert "limit of adam" in probed.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pre-ln", "--lr", "0.1"], "Add --probes"),
        (["pre-ln", *TINY, "--seeds", "1", "--probes", "--lr", "-1"], "positive and finite"),
        (["pre-ln", *TINY, "--seeds", "1", "--probes", "--optimizer", "lion"], "'lion' is not one of"),
    ],
)
def test_what_cannot_be_probed_is_said(gradlens, arguments, said):
    result = gradlens("inspect", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_recording_has_no_model_to_probe(gradlens, finished):
    result = gradlens("inspect", finished / "runs" / "post-ln" / "init", "--probes")
    assert result.exit_code == 2
    assert "needs a model to run" in result.stderr


def test_many_norms_take_a_screen_and_all_of_them_are_there_on_demand(gradlens):
    many = ["inspect", "peri-ln", *TINY, "--layers", "12", "--seeds", "1"]
    screen, whole = (gradlens(*many, *more).stdout.splitlines() for more in ([], ["--all"]))
    assert len(screen) < 40 < len(whole)
    assert any(line.startswith("... ") and line.endswith(" more: --all") for line in screen)
    assert any(line.startswith("final_norm") for line in screen)
    assert sum("_norm  " in line for line in whole) == 12 * 4 + 1
    assert not any("--all" in line for line in whole)
