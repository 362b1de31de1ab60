"""The command line: parses options, calls one function of gateway/commands, turns errors into an exit status.

Holds no logic of its own: what a command does is in gateway/commands. Each file here has a few commands, and only the
file of the command that was asked for is imported: all of them together take two seconds.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import typer

from gateway.core.errors import Expected

FILES: Final = {
    "local": ("up", "demo", "sandbox"),
    "serve": ("serve",),
    "worker": ("worker",),
    "migrate": ("migrate",),
    "doctor": ("doctor",),
    "keys": (),
    "users": (),
    "budgets": (),
    "credits": (),
    "report": (),
    "billing": (),
    "audit": ("audit",),
    "journal": (),
    "rooms": (),
    "meetings": (),
    "retention": ("retention",),
    "daily": (),
    "config": (),
    "price": ("price",),
}
"""File → its commands; a file without any is a group of commands under its own name."""


def build(arguments: Sequence[str]) -> typer.Typer:
    """The command line, or as much of it as these arguments need."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="A metering gateway for OpenAI.",
    )
    first = arguments[0] if arguments else ""
    wanted = [file for file, commands in FILES.items() if first in (commands or (file,))]
    for file in wanted or FILES:
        part: typer.Typer = import_module(f"gateway.cli.{file}").app
        app.add_typer(part, name=None if FILES[file] else file)
    if len(wanted) == 1:
        app.callback()(_several)
    return app


def _several() -> None:
    """Tells typer that there are more commands, so that the name of a single one is still asked for."""


def main() -> None:
    """The console script; exits by SystemExit."""
    try:
        build(sys.argv[1:])()
    except Expected as error:
        typer.echo(f"gateway: {error}", err=True)
        raise SystemExit(1) from None
