import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from gradlens.cli import list as list_command
from gradlens.cli.main import COMMANDS, main

HEAVY = ("torch", "pandas", "scipy.stats", "matplotlib.pyplot", "pyarrow", "rich")


def modules_after(*arguments: str) -> set[str]:
    """Run the program in a fresh Python and return which modules it imported."""
    code = (
        "import sys\nfrom gradlens.cli.main import main\n"
        f"try:\n    main({list(arguments)!r})\n"
        "except SystemExit as end:\n    assert end.code in (0, None), end\n"
        "print('\\n' + ' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_help_imports_nothing_heavy():
    assert not modules_after("--help") & set(HEAVY)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_does_not_import_torch(command):
    assert not modules_after(command, "--help") & {"torch", "scipy.stats", "matplotlib.pyplot"}


def test_the_test_on_imports_can_fail():
    assert "pandas" in modules_after("list")


@pytest.mark.parametrize("arguments", [["list"], ["explain", "GL101"]])
def test_what_there_is_is_told_without_torch(arguments):
    assert not modules_after(*arguments) & {"torch", "scipy.stats", "matplotlib.pyplot"}


@pytest.mark.parametrize("command", ["report", "diagnose"])
def test_finished_runs_are_read_without_torch(command, finished):
    limit = ["--fail-on", "fail"] if command == "diagnose" else []
    runs = [str(path) for path in (finished / "runs" / "pre-ln").glob("init")]
    assert not modules_after(command, *runs, *limit) & {"torch", "scipy.stats", "matplotlib.pyplot"}


def test_help_starts_within_three_times_bare_python_and_click():
    def seconds(code: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun

    bare = "import click"
    ours = "from gradlens.cli.main import main; main(['--help'])"
    pairs = [(seconds(bare), seconds(ours)) for _ in range(7)]
    assert min(ours for _, ours in pairs) <= 3 * min(bare for bare, _ in pairs)


def test_help_names_every_command(gradlens):
    text = gradlens("--help").stdout
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["copmare", "pre-ln"], "compare"),
        (["compare", "post-lnn"], "post-ln"),
        (["compare", "post-ln/adanrom"], "adanorm"),
        (["compare", "pre-ln", "--task", "ln"], "lm"),
        (["compare", "pre-ln", "--step", "5", "--stepz", "6"], "--steps"),
        (["explain", "GL1O1"], "there are GL101, GL102"),
        (["explain", "GX001"], "GL600 ... GL619"),
        (["train", "pre-lm"], "pre-ln"),
    ],
)
def test_a_misspelt_name_gets_the_near_ones(gradlens, arguments, near):
    result = gradlens(*arguments)
    assert result.exit_code == 2
    assert near in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [[], ["compare"], ["compare", "pre-ln", "--steps", "0"], ["compare", "pre-ln", "--lr", "-1"], ["report"]],
)
def test_impossible_usage_exits_with_2(gradlens, arguments):
    assert gradlens(*arguments).exit_code == 2


def test_a_bug_exits_with_3_and_keeps_its_traceback_in_a_file(monkeypatch):
    monkeypatch.setattr(list_command, "_lines", lambda registry: 1 / 0)
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 3
    assert "ZeroDivisionError" in result.stderr
    assert "Traceback" not in result.output
    written = result.stderr.split("traceback in ")[1].strip().removesuffix(".")
    with open(written) as file:
        assert "1 / 0" in file.read()


def test_a_traceback_is_shown_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(list_command, "_lines", lambda registry: 1 / 0)
    assert "Traceback" in CliRunner().invoke(main, ["list", "-v"]).stderr


def test_an_interrupted_command_exits_with_130(monkeypatch):
    def interrupted(registry):
        raise KeyboardInterrupt

    monkeypatch.setattr(list_command, "_lines", interrupted)
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr
