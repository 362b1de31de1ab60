"""The command line: finds the file of a command, and turns errors into an exit status.

Each subject's folder has a `cli.py` that parses options and calls one function beside it. Only the file of the command
that was asked for is imported: all of them together take two seconds.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from platform import python_version
from typing import Annotated, Final

import typer

from gateway.cli.command import note
from gateway.cli.examples import epilog
from gateway.kit.core_dumps import forbid_dumps
from gateway.kit.errors import Expected
from gateway.kit.version import VERSION

PANELS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "Try it on one machine": {"local": ("up", "demo", "sandbox")},
    "Run it": {
        "serve": ("serve",),
        "worker": ("worker",),
        "migrate": ("migrate",),
        "doctor": ("doctor",),
        "config": (),
        "journal": (),
        "hosts": ("hosts",),
    },
    "People, keys and limits": {
        "users": (),
        "customers": (),
        "keys": (),
        "budgets": (),
        "credits": (),
        "log": ("log",),
    },
    "Usage and money": {
        "report": (),
        "audit": ("audit",),
        "adjust": ("adjust",),
        "corrections": (),
        "quarantine": (),
        "billing": (),
        "close": (),
        "plans": (),
        "stripe": (),
        "reconcile": (),
        "price": ("price",),
    },
    "Meetings and rooms": {"meetings": (), "daily": (), "rooms": (), "retention": ("retention",)},
}
"""Heading in the help → file → its commands; a file without any is a group of commands under its own name."""

HOMES: Final = {
    "local": "processes.local_cli",
    "serve": "processes.serve_cli",
    "worker": "processes.worker_cli",
    "migrate": "stores.cli",
    "doctor": "doctor.cli",
    "config": "doctor.config_cli",
    "journal": "ledger.cli",
    "hosts": "hosts.cli",
    "users": "accounts.cli",
    "customers": "accounts.customers_cli",
    "keys": "keys.cli",
    "budgets": "limits.cli",
    "credits": "limits.credits_cli",
    "log": "trail.cli",
    "report": "reports.cli",
    "audit": "audit.cli",
    "adjust": "corrections.adjust_cli",
    "corrections": "corrections.cli",
    "quarantine": "quarantine.cli",
    "billing": "billing.cli",
    "close": "close.cli",
    "plans": "plans.cli",
    "stripe": "billing.stripe_cli",
    "reconcile": "billing.reconcile_cli",
    "price": "prices.cli",
    "meetings": "meetings.cli",
    "daily": "meetings.daily_cli",
    "rooms": "rooms.cli",
    "retention": "retention.cli",
}
"""File → the module under `gateway` that has it."""


def build(arguments: Sequence[str]) -> typer.Typer:
    """The command line, or as much of it as these arguments need."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="A metering gateway for OpenAI.",
        epilog=epilog(""),
    )
    app.callback()(_program)
    first = arguments[0] if arguments else ""
    files = [(file, commands, panel) for panel, group in PANELS.items() for file, commands in group.items()]
    wanted = [each for each in files if first in (each[1] or each[:1])]
    # The version is said without any command.
    for file, commands, panel in wanted or ([] if first == "--version" else files):
        _add(app, file, commands, panel)
    return app


def _add(app: typer.Typer, file: str, commands: Sequence[str], panel: str) -> None:
    """Adds what a file has, with its place in the help and its examples."""
    part: typer.Typer = import_module(f"gateway.{HOMES[file]}").app
    for info in part.registered_commands:
        name = info.name or ("" if info.callback is None else info.callback.__name__.replace("_", "-"))
        info.epilog = epilog(name if commands else f"{file} {name}")
        info.rich_help_panel = panel if commands else info.rich_help_panel
    app.add_typer(part, name=None if commands else file, rich_help_panel=panel, epilog=epilog(file))


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gateway {VERSION} (Python {python_version()})")
        raise typer.Exit


def _program(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """A metering gateway for OpenAI."""


def main() -> None:
    """The console script; exits by SystemExit."""
    forbid_dumps()
    try:
        build(sys.argv[1:])(prog_name="gateway")
    except Expected as error:
        note(f"gateway: {error}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:  # while the commands were still being imported; typer takes it from there
        raise SystemExit(130) from None
