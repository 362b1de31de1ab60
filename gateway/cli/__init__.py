"""The command line: parses options, calls one function of gateway/commands, turns errors into an exit status.

Holds no logic of its own: what a command does is in gateway/commands. Groups of commands have a file each here.
"""

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

import pricing
import pricing.data
from gateway.cli import billing, keys, report, users
from gateway.cli.base import run, say, settings
from gateway.commands import doctor as doctor_command
from gateway.commands import price as price_command
from gateway.commands import sandbox as sandbox_command
from gateway.commands import serve as serve_command
from gateway.commands import up as up_command
from gateway.core.config import required
from gateway.core.errors import ConfigError, DependencyDown, OptionError
from gateway.core.log import configure
from gateway.edges import migrator
from gateway.edges.journal import SlotTaken
from gateway.embedded import EmbeddedError
from gateway.processes import ChildFailed

EXPECTED = (
    ConfigError,
    DependencyDown,
    OptionError,
    EmbeddedError,
    ChildFailed,
    SlotTaken,
    migrator.MigrationFailed,
)
"""Errors whose message is for the person at the terminal; anything else is a bug and shows its trace."""

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="A metering gateway for OpenAI."
)
app.add_typer(keys.app, name="keys")
app.add_typer(users.app, name="users")
app.add_typer(report.app, name="report")
app.add_typer(billing.app, name="billing")


@app.command()
def up(
    real: Annotated[str, typer.Option(help="Vendors to use for real, not the sandbox: openai,unkey,stripe.")] = "",
    workers: Annotated[int, typer.Option(min=1, help="Proxy processes.")] = 1,
) -> None:
    """Everything on one machine, with the sandbox for every vendor and one ready-to-use key."""
    vendors = frozenset(filter(None, (name.strip() for name in real.split(","))))
    run(up_command.up(settings(), os.environ, real=vendors, workers=workers, say=say))


@app.command()
def demo() -> None:
    """One shot on the sandbox: real SDK calls, their rows, their cost and the Stripe meter event."""
    # A process of its own: only the demo needs the openai SDK, whose import costs as much as all the rest.
    raise typer.Exit(subprocess.call([sys.executable, "-m", "gateway.commands.demo"]))


@app.command()
def serve(
    workers: Annotated[int | None, typer.Option(min=1, help="Proxy processes (GATEWAY_WORKERS).")] = None,
    background: Annotated[bool, typer.Option(help="Run a background worker here too.")] = True,
) -> None:
    """The proxy on real services, with the keeper of its journal and a background worker."""
    configure()
    loaded = settings()
    count = loaded.gateway_workers if workers is None else workers
    run(serve_command.serve(loaded, workers=count, background=background, say=say))


@app.command()
def worker(
    admin_port: Annotated[int, typer.Option(min=0, max=65535, help="Of /metrics; 0 takes a free one.")] = 0,
) -> None:
    """The background work: flush, and report to Stripe. Any number may run, on any host."""
    configure()
    run(serve_command.worker(settings(), admin_port=admin_port, say=say))


@app.command()
def migrate() -> None:
    """Brings the database up to date; safe to run twice and from two places at once."""
    report = run(migrator.migrate(required(settings(), "database_url")["database_url"]))
    for migration in report.applied:
        say(f"applied {migration.version}_{migration.name}")
    for notice in report.notices:
        say(f"notice: {notice}")
    say(f"{len(report.applied)} applied, {report.already} there before")


@app.command()
def sandbox(port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8090) -> None:
    """The vendor stand-ins alone (OpenAI, Unkey, Stripe), on loopback."""
    run(sandbox_command.sandbox(port, say))


@app.command()
def doctor() -> None:
    """Asks every dependency; says what is wrong and how to mend it. Exits 1 if a call could not be metered."""
    raise typer.Exit(run(doctor_command.doctor(settings(), Console(), today=datetime.now(UTC).date())))


@app.command()
def price() -> None:
    """Reads JSON lines on standard input, writes one priced JSON line each."""
    book = pricing.parse(pricing.data.read_texts())

    def write(line: str) -> None:
        sys.stdout.write(line)

    raise typer.Exit(price_command.run(sys.stdin.buffer, write, book))


def main() -> None:
    """The console script; exits by SystemExit."""
    try:
        app()
    except EXPECTED as error:
        typer.echo(f"gateway: {error}", err=True)
        raise SystemExit(1) from None
