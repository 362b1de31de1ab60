"""`gateway keys …`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.accounts.cost_centres import cost_centre_options
from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.keys import change as set_command
from gateway.keys import change_commands, commands
from gateway.keys import create as create_command
from gateway.keys.bounds import key_bounds
from gateway.keys.reroll import OVERLAP_MAX
from gateway.kit.errors import OptionError
from gateway.kit.instants import parse_expiry, parse_instant, parse_span

app = typer.Typer(no_args_is_help=True, help="API keys, made at Unkey and linked to a user (docs/keys.md).")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Unkey's id of the key (key_…) or ours (a UUID).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def create(
    user: Annotated[str, typer.Option(help="E-mail address or UUID of the key's owner.")],
    name: Annotated[str | None, typer.Option(help="What the key is for.")] = None,
    description: Annotated[str | None, typer.Option(help="Stored here only.")] = None,
    create_user: Annotated[bool, typer.Option("--create-user", help="Make the user if there is none.")] = False,
    expires: Annotated[str | None, typer.Option(help="When it ends: a date, an RFC 3339 time, or 30d, 12h.")] = None,
    models: Annotated[str | None, typer.Option(help="Only these: gpt-5,gpt-4.1* (with their snapshots).")] = None,
    endpoints: Annotated[str | None, typer.Option(help="Only these: chat,responses,embeddings,…")] = None,
    permission: Annotated[list[str] | None, typer.Option(help="Any other permission at Unkey; repeatable.")] = None,
    rpm: Annotated[int | None, typer.Option(help="Requests per minute.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens per minute.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Calls at the same time.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Prefix of the key, before a _.")] = None,
    as_json: Json = False,
) -> None:
    """Makes a key and shows it once."""
    bounds = key_bounds(
        models=models, endpoints=endpoints, permissions=permission or (), rpm=rpm, tpm=tpm, concurrent=concurrent
    )
    created = run(
        create_command.create(
            settings(),
            user=user,
            name=name,
            description=description,
            prefix=prefix,
            create_user=create_user,
            expires_at=None if expires is None else parse_expiry(expires, "expires", datetime.now(UTC)),
            bounds=bounds,
        )
    )
    commands.show_created(Console(), created, as_json=as_json)


@app.command("list")
def list_keys(
    user: Annotated[str | None, typer.Option(help="Only of this user: e-mail address or UUID.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Include revoked and expired keys.")] = False,
    limits: Annotated[bool, typer.Option("--limits", help="Ask Unkey for the permissions and limits of each.")] = False,
    as_json: Json = False,
) -> None:
    """Lists the keys that are linked here; never their secrets."""
    now = datetime.now(UTC)
    run(commands.list_keys(settings(), Console(), now=now, user=user, every=every, limits=limits, as_json=as_json))


@app.command()
def show(key: KeyId, as_json: Json = False) -> None:
    """Shows one key here and at Unkey, and where the two differ."""
    run(commands.show(settings(), Console(), reference=key, now=datetime.now(UTC), as_json=as_json))


@app.command("set")
def set_fields(
    key: KeyId,
    name: Annotated[str | None, typer.Option(help="What the key is for; empty: no name.")] = None,
    description: Annotated[str | None, typer.Option(help="Stored here only; empty: none.")] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends: a date, an RFC 3339 time, or 30d, 12h.")] = None,
    no_expires: Annotated[bool, typer.Option("--no-expires", help="It never ends.")] = False,
    models: Annotated[str | None, typer.Option(help="Only these: gpt-5,gpt-4.1* (with their snapshots).")] = None,
    all_models: Annotated[bool, typer.Option("--all-models", help="Allow all models.")] = False,
    endpoints: Annotated[str | None, typer.Option(help="Only these: chat,responses,embeddings,…")] = None,
    all_endpoints: Annotated[bool, typer.Option("--all-endpoints", help="Allow all endpoints.")] = False,
    rpm: Annotated[int | None, typer.Option(help="Requests per minute.")] = None,
    no_rpm: Annotated[bool, typer.Option("--no-rpm", help="Remove the key's request limit.")] = False,
    tpm: Annotated[int | None, typer.Option(help="Tokens per minute.")] = None,
    no_tpm: Annotated[bool, typer.Option("--no-tpm", help="Remove the key's token limit.")] = False,
    concurrent: Annotated[int | None, typer.Option(help="Calls at the same time.")] = None,
    no_concurrent: Annotated[
        bool, typer.Option("--no-concurrent", help="Remove the key's limit on concurrent calls.")
    ] = False,
    cost_centre: Annotated[
        str | None, typer.Option(metavar="CODE", help="Where its cost belongs, for reports; empty: its user's.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="DATE", help="With --cost-centre: from this UTC day on; default today."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Changes a key at Unkey and here; other settings stay as they are."""
    if cost_centre is not None:
        begins = None if since is None else parse_instant(since, "--from")
        centre = cost_centre_options(cost_centre, begins, datetime.now(UTC))
        others = (name, description, expires, models, endpoints, rpm, tpm, concurrent)
        flags = (no_expires, all_models, all_endpoints, no_rpm, no_tpm, no_concurrent)
        if any(flags) or any(each is not None for each in others):
            raise OptionError("--cost-centre: set it by itself; it is kept here only, the others at Unkey")
        run(change_commands.set_cost_centre(settings(), Console(), reference=key, centre=centre, as_json=as_json))
        return
    if since is not None:
        raise OptionError("--from: belongs to --cost-centre")
    change = set_command.wanted(
        datetime.now(UTC),
        name=name,
        description=description,
        expires=(expires, no_expires),
        models=(models, all_models),
        endpoints=(endpoints, all_endpoints),
        rpm=(rpm, no_rpm),
        tpm=(tpm, no_tpm),
        concurrent=(concurrent, no_concurrent),
    )
    run(change_commands.set_fields(settings(), Console(), reference=key, change=change, as_json=as_json))


@app.command()
def disable(key: KeyId, as_json: Json = False) -> None:
    """Refuses a key, at Unkey and here, until it is enabled; idempotent."""
    now = datetime.now(UTC)
    run(change_commands.disable(settings(), Console(), reference=key, now=now, as_json=as_json))


@app.command()
def enable(key: KeyId, as_json: Json = False) -> None:
    """Enables a disabled key; a revoked one stays revoked."""
    now = datetime.now(UTC)
    run(change_commands.enable(settings(), Console(), reference=key, now=now, as_json=as_json))


@app.command()
def revoke(key: KeyId, as_json: Json = False) -> None:
    """Disables a key at Unkey and here, for good; idempotent."""
    run(change_commands.revoke(settings(), Console(), reference=key, as_json=as_json))


@app.command()
def reroll(
    key: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key still works: 0s, 90m, 12h, 7d.")] = "0s",
    as_json: Json = False,
) -> None:
    """Replaces a key by a new one with the same rights, shown once; the old one ends."""
    now = datetime.now(UTC)
    run(
        change_commands.reroll(
            settings(),
            Console(),
            reference=key,
            overlap=parse_span(overlap, "--overlap", OVERLAP_MAX),
            now=now,
            as_json=as_json,
        )
    )


@app.command()
def sync(
    repair: Annotated[bool, typer.Option("--repair", help="Fix our side to match Unkey, where that is safe.")] = False,
    revoke_at_most: Annotated[
        int, typer.Option(help="Rows that --repair may mark revoked because Unkey does not know their keys.")
    ] = 10,
    as_json: Json = False,
) -> None:
    """Compares all keys at Unkey with those linked here; exits 1 while anything differs."""
    synced = run(
        change_commands.sync(settings(), Console(), repair=repair, revoke_at_most=revoke_at_most, as_json=as_json)
    )
    raise typer.Exit(1 if synced.left else 0)
