"""`gateway keys …`."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from gateway.cli.base import run, settings
from gateway.commands import keys as keys_command

app = typer.Typer(no_args_is_help=True, help="API keys, made at Unkey and linked to a user.")


@app.command()
def create(
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
