"""`gateway keys …`."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from gateway.cli.base import run, settings
from gateway.commands import keys as keys_command
from gateway.commands import keys_list as list_command
from gateway.commands import keys_revoke as revoke_command
from gateway.commands import keys_show as show_command
from gateway.commands.key_bounds import key_bounds

app = typer.Typer(no_args_is_help=True, help="API keys, made at Unkey and linked to a user (docs/keys.md).")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Unkey's id of the key (key_…) or ours (a UUID).")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def create(
    user: Annotated[str, typer.Option(help="E-mail address or UUID of the key's owner.")],
    name: Annotated[str | None, typer.Option(help="What the key is for.")] = None,
    description: Annotated[str | None, typer.Option(help="More about it; kept here only.")] = None,
    create_user: Annotated[bool, typer.Option("--create-user", help="Make the user if there is none.")] = False,
    expires: Annotated[str | None, typer.Option(help="When it ends: a date, an RFC 3339 time, or 30d, 12h.")] = None,
    models: Annotated[str | None, typer.Option(help="Only these: gpt-5,gpt-4.1* (with their snapshots).")] = None,
    endpoints: Annotated[str | None, typer.Option(help="Only these: chat,responses,embeddings,…")] = None,
    permission: Annotated[list[str] | None, typer.Option(help="Any other permission at Unkey; more than once.")] = None,
    rpm: Annotated[int | None, typer.Option(help="Requests per minute.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens per minute.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Calls at the same time.")] = None,
    prefix: Annotated[str | None, typer.Option(help="What the key begins with, before a _.")] = None,
    as_json: Json = False,
) -> None:
    """Makes a key and shows it once."""
    bounds = key_bounds(
        models=models, endpoints=endpoints, permissions=permission or (), rpm=rpm, tpm=tpm, concurrent=concurrent
    )
    run(
        keys_command.create(
            settings(),
            Console(),
            user=user,
            now=datetime.now(UTC),
            name=name,
            description=description,
            prefix=prefix,
            create_user=create_user,
            expires=expires,
            bounds=bounds,
            as_json=as_json,
        )
    )


@app.command("list")
def list_keys(
    user: Annotated[str | None, typer.Option(help="Only of this user: e-mail address or UUID.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Revoked and expired ones too.")] = False,
    as_json: Json = False,
) -> None:
    """Lists the keys that are linked here; never their secrets."""
    now = datetime.now(UTC)
    run(list_command.list_keys(settings(), Console(), now=now, user=user, every=every, as_json=as_json))


@app.command()
def show(key: KeyId, as_json: Json = False) -> None:
    """Shows one key as it stands here and at Unkey, and where the two differ."""
    run(show_command.show(settings(), Console(), reference=key, now=datetime.now(UTC), as_json=as_json))


@app.command()
def revoke(key: KeyId, as_json: Json = False) -> None:
    """Disables a key at Unkey and here, for good; safe to run twice."""
    run(revoke_command.revoke(settings(), Console(), reference=key, as_json=as_json))
