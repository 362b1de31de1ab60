"""The command line: parses options, calls one function of gateway/commands, turns errors into an exit status.

Holds no logic of its own: what a command does is in gateway/commands.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

import pricing
import pricing.data
from gateway.commands import billing as billing_command
from gateway.commands import doctor as doctor_command
from gateway.commands import keys as keys_command
from gateway.commands import price as price_command
from gateway.commands import report as report_command
from gateway.commands import sandbox as sandbox_command
from gateway.commands import serve as serve_command
from gateway.commands import up as up_command
from gateway.core.config import Settings, required
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
keys_app = typer.Typer(no_args_is_help=True, help="API keys, made at Unkey and linked to a user.")
report_app = typer.Typer(no_args_is_help=True, help="Usage for finance.")
billing_app = typer.Typer(no_args_is_help=True, help="Stripe meter events that wait for a person (docs/billing.md).")
app.add_typer(keys_app, name="keys")
app.add_typer(report_app, name="report")
app.add_typer(billing_app, name="billing")


def say(line: str) -> None:
    """One line of progress for a person, at once."""
    typer.echo(line)
    sys.stdout.flush()


def settings() -> Settings:
    """The settings of this process. Raises ConfigError naming the setting that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        # Never the value: it may be a secret.
        wrong = "; ".join(f"{'.'.join(map(str, item['loc'])).upper()}: {item['msg']}" for item in error.errors())
        raise ConfigError(wrong) from None


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs a command's coroutine."""
    return asyncio.run(work)


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
def worker() -> None:
    """The background work: flush, and report to Stripe. Any number may run, on any host."""
    configure()
    run(serve_command.worker(settings()))


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


@keys_app.command("create")
def keys_create(
    user: Annotated[str, typer.Option(help="E-mail address or UUID of the key's owner.")],
    name: Annotated[str | None, typer.Option(help="What the key is for.")] = None,
    create_user: Annotated[bool, typer.Option("--create-user", help="Make the user if there is none.")] = False,
    expires: Annotated[str | None, typer.Option(help="When it ends: a date, an RFC 3339 time, or 30d, 12h.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Makes a key and shows it once."""
    run(
        keys_command.create(
            settings(),
            Console(),
            user=user,
            now=datetime.now(UTC),
            name=name,
            create_user=create_user,
            expires=expires,
            as_json=as_json,
        )
    )


@report_app.command("usage")
def report_usage(
    by: Annotated[str, typer.Option(help="month, day, user, key, model, endpoint, tier; several with commas.")] = "day",
    since: Annotated[str | None, typer.Option("--from", help="First instant, UTC.")] = None,
    until: Annotated[str | None, typer.Option("--until", "--to", help="First instant no longer in it, UTC.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Calls, tokens, cost and what is billed."""
    dimensions = [name.strip() for name in by.split(",") if name.strip()]
    run(report_command.usage(settings(), Console(), by=dimensions, since=since, until=until, as_json=as_json))


@billing_app.command("held")
def billing_held(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Lists the meter events that Stripe refused, and those that it may or may not have counted."""
    run(billing_command.held(settings(), Console(), as_json=as_json))


@billing_app.command("again")
def billing_again(identifier: str) -> None:
    """Queues an event again under a new identifier: only for one that Stripe has not counted."""
    run(billing_command.again(settings(), Console(), identifier=identifier, now=datetime.now(UTC)))


@billing_app.command("delivered")
def billing_delivered(identifier: str) -> None:
    """Marks an unknown event as sent: for one that Stripe's meter summaries contain."""
    run(billing_command.delivered(settings(), Console(), identifier=identifier, now=datetime.now(UTC)))


def main() -> None:
    """The console script; exits by SystemExit."""
    try:
        app()
    except EXPECTED as error:
        typer.echo(f"gateway: {error}", err=True)
        raise SystemExit(1) from None
