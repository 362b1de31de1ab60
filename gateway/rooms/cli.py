"""`gateway rooms …`."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.command import run, say, settings
from gateway.cli.console import Console
from gateway.rooms import commands as rooms_command
from gateway.rooms import ring
from gateway.rooms.importing import commands as import_command
from gateway.rooms.importing.import_sqlite import ImportOptions

app = typer.Typer(no_args_is_help=True, help="The sealed state of sessions (docs/rooms.md).")

File = Annotated[Path, typer.Argument(metavar="FILE", help="An SQLite database; it is only read.")]
Table = Annotated[str | None, typer.Option(help="The table that holds the rooms, if it cannot be detected.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("new-key")
def new_key(
    key_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Default: an id made from today's date.")
    ] = None,
) -> None:
    """Prints a new entry for ROOMS_KEYS. It is not stored: put it first, before a comma and the older ones."""
    say(ring.new_key(settings(), key_id=key_id, now=datetime.now(UTC), random_bytes=os.urandom))


@app.command("rotate-key")
def rotate_key(
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Rooms in one transaction.")] = 200,
    as_json: Json = False,
) -> None:
    """Reseals every room under the newest key. Can be interrupted and restarted; exits 1 while any is left."""
    done = run(rooms_command.rotate_key(settings(), Console(), batch=batch, as_json=as_json))
    raise typer.Exit(1 if done.left or done.failed else 0)


@app.command()
def check(as_json: Json = False) -> None:
    """Opens every room; lists those that do not open and exits 1."""
    found = run(rooms_command.check(settings(), Console(), as_json=as_json))
    raise typer.Exit(1 if found.failed else 0)


@app.command("import-sqlite")
def import_sqlite(
    file: File,
    config: Annotated[Path | None, typer.Option(metavar="MAP.toml", help="The mapping of columns.")] = None,
    table: Table = None,
    update: Annotated[bool, typer.Option("--update", help="Overwrite rooms that differ.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Imports rooms from an SQLite file, seals and verifies them. Can be run again; never writes to the file.

    Exits 1 when a row could not be taken, or anything is not here as the file has it.
    """
    options = ImportOptions(file, config, table, update, dry_run)
    done = run(import_command.import_sqlite(settings(), Console(), options=options, as_json=as_json))
    raise typer.Exit(0 if done.whole else 1)


@app.command("import-map")
def import_map(file: File, table: Table = None) -> None:
    """Prints a first map for import-sqlite, made from the file's columns."""
    import_command.import_map(Console(), file=file, table=table)
