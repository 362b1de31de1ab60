"""What the command line says of itself: its version, its headings, and examples that parse."""

import shlex
from typing import Any

import pytest
import typer.main

from gateway.cli import PANELS, build
from gateway.cli.examples import EXAMPLES
from gateway.kit.version import VERSION
from tests.support.invoke import gateway

LINES = [(of, line) for of, lines in EXAMPLES.items() for line in lines]


def parsed(words: list[str]) -> list[str]:
    """The names of the command that these arguments call; raises what a wrong option raises. Runs nothing."""
    command: Any = typer.main.get_command(build(words))
    names: list[str] = []
    context = command.make_context("gateway", list(words))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        names.append(name)
        context = command.make_context(name, rest, parent=context)
    return names


@pytest.mark.parametrize(("of", "line"), LINES, ids=[line for _, line in LINES])
def test_every_example_parses_and_stands_where_it_belongs(of: str, line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "gateway"
    assert parsed(words)[: len(of.split())] == of.split()


def test_a_wrong_example_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed(["keys", "create", "--user", "x", "--colour", "red"])


async def test_help_by_h_has_headings_and_examples() -> None:
    told = (await gateway({}, "-h")).out
    assert [heading for heading in PANELS if heading not in told] == []
    assert "Commands" not in told, "every command has a heading of its own"
    for words in (["up"], ["keys"], ["keys", "create"]):
        told = (await gateway({}, *words, "-h")).out
        assert [line for line in EXAMPLES[" ".join(words)] if line not in told] == []


async def test_the_version_is_printed_without_importing_the_commands() -> None:
    assert typer.main.get_group(build(["--version"])).commands == {}
    assert (await gateway({}, "--version")).out.startswith(f"gateway {VERSION} (Python 3.")
