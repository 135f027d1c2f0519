"""What a shell offers after TAB, asked as a shell asks."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
from gradlens.cli.main import main
main()
"""


def called(**variables: str) -> list[str]:
    environment = os.environ | variables
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "False")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("typed", "some"),
    [
        ("compare post-ln/ad", {"plain,post-ln/adanorm"}),
        ("train --task im", {"plain,images"}),
        ("explain GL10", {"plain,GL101", "plain,GL102"}),
        ("explain norms.ke", {"plain,norms.kept"}),
        ("reproduce xi", {"plain,xiong2020"}),
        ("inspect ./my", {"file,./my"}),
    ],
)
def test_a_shell_offers_what_there_is_and_loads_no_torch_for_it(typed: str, some: set[str]) -> None:
    cword = str(len(typed.split(" ")))
    offered = called(_GRADLENS_COMPLETE="bash_complete", COMP_WORDS=f"gradlens {typed}", COMP_CWORD=cword)
    assert some <= set(offered)


def test_another_shell_gets_a_script_of_its_own() -> None:
    assert any("_GRADLENS_COMPLETE=fish_complete" in line for line in called(_GRADLENS_COMPLETE="fish_source"))
