"""`gateway rooms …`."""

import os
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from gateway.cli.base import run, settings
from gateway.commands import rooms as rooms_command

app = typer.Typer(no_args_is_help=True, help="The sealed state of sessions (docs/rooms.md).")

Json = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command("new-key")
def new_key(
    key_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Without it: one of the day.")] = None,
) -> None:
    """Prints a new entry for ROOMS_KEYS. It is kept nowhere: put it first, before a comma and the older ones."""
    typer.echo(rooms_command.new_key(settings(), key_id=key_id, now=datetime.now(UTC), random_bytes=os.urandom))


@app.command("rotate-key")
def rotate_key(
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Rooms in one transaction.")] = 200,
    as_json: Json = False,
) -> None:
    """Seals every room anew under the newest key. May be stopped and begun again; exits 1 while any is left."""
    done = run(rooms_command.rotate_key(settings(), Console(), batch=batch, as_json=as_json))
    raise typer.Exit(1 if done.left or done.failed else 0)


@app.command()
def check(as_json: Json = False) -> None:
    """Opens every room; exits 1 when one does not open, and lists those."""
    found = run(rooms_command.check(settings(), Console(), as_json=as_json))
    raise typer.Exit(1 if found.failed else 0)
