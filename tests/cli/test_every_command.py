"""What holds for every command, whoever adds one."""

import click
import pytest

from gradlens.cli.main import COMMANDS, main


@pytest.fixture(params=COMMANDS)
def name(request) -> str:
    return request.param


def test_its_help_says_what_it_does(gradlens, name):
    result = gradlens(name, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: main " + name)
    assert COMMANDS[name].endswith(".")


def test_an_option_that_it_does_not_have_is_a_mistake_of_the_user_and_prints_no_data(gradlens, name):
    result = gradlens(name, "--no-such-option")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--no-such-option" in result.stderr


def test_every_option_is_explained(name):
    command = main.get_command(click.Context(main), name)
    commands = [command, *getattr(command, "commands", {}).values()]
    unexplained = [p.name for c in commands for p in c.params if isinstance(p, click.Option) and not p.help]
    assert unexplained == []
