"""`gateway up`, `gateway demo` and `gateway sandbox`: everything on this machine."""

import os
import sys
from typing import Annotated

import typer

from gateway.cli.command import run, say, settings
from gateway.config.secret_files import with_file_values
from gateway.embedded import EmbeddedError
from gateway.kit.errors import ConfigError
from gateway.processes import local, sandbox_command
from gateway.processes import up as up_command

app = typer.Typer()


@app.command()
def up(
    real: Annotated[
        str, typer.Option(help=f"Vendors to use for real, not the sandbox: {','.join(local.VENDORS)}.")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="Proxy processes.")] = 1,
) -> None:
    """Everything on one machine, with the sandbox for every vendor and one ready-to-use key."""
    vendors = frozenset(filter(None, (name.strip() for name in real.split(","))))
    try:
        run(up_command.up(settings(), with_file_values(os.environ), real=vendors, workers=workers, say=say))
    except EmbeddedError as error:
        raise ConfigError(str(error)) from error


@app.command()
def demo() -> None:
    """A short run on the sandbox: real SDK calls, their rows, their cost and the Stripe meter event."""
    # A program of its own: only the demo needs the openai SDK, whose import costs as much as all the rest. In this
    # very process, so that whoever stops us stops it, and it takes its servers down.
    os.execv(sys.executable, [sys.executable, "-m", "gateway.processes.demo"])  # noqa: S606  (no shell)


@app.command()
def sandbox(port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8090) -> None:
    """The vendor stand-ins alone (OpenAI, Unkey, Stripe, Daily), on loopback."""
    run(sandbox_command.sandbox(port, say))
