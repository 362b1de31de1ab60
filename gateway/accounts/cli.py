"""`gateway users …`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.accounts import commands as users_command
from gateway.cli.command import run, settings
from gateway.cli.console import Console

app = typer.Typer(no_args_is_help=True, help="Accounts: who owns keys and who is billed (docs/keys.md).")

Who = Annotated[str, typer.Argument(metavar="WHO", help="E-mail address or UUID of the user.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Customer = Annotated[
    str | None, typer.Option(metavar="cus_…", help="The customer at Stripe who pays; Stripe must have it.")
]
Name = Annotated[str | None, typer.Option(help="Display name.")]


@app.command()
def create(
    email: Annotated[str, typer.Argument(metavar="EMAIL")],
    name: Name = None,
    stripe_customer: Customer = None,
    as_json: Json = False,
) -> None:
    """Makes a user; their keys come from `gateway keys create`."""
    run(
        users_command.create(
            settings(), Console(), email=email, name=name, stripe_customer=stripe_customer, as_json=as_json
        )
    )


@app.command("list")
def list_users(
    every: Annotated[bool, typer.Option("--all", help="Include disabled users.")] = False,
    stripe: Annotated[bool, typer.Option("--stripe", help="Check each customer at Stripe.")] = False,
    as_json: Json = False,
) -> None:
    """Lists users, with the number of their active keys."""
    now = datetime.now(UTC)
    run(users_command.list_users(settings(), Console(), now=now, every=every, ask_stripe=stripe, as_json=as_json))


@app.command()
def disable(who: Who, as_json: Json = False) -> None:
    """Refuses every key of a user. Past usage stays and is billed."""
    run(users_command.set_active(settings(), Console(), who=who, is_active=False, as_json=as_json))


@app.command()
def enable(who: Who, as_json: Json = False) -> None:
    """Lets a disabled user's keys work again."""
    run(users_command.set_active(settings(), Console(), who=who, is_active=True, as_json=as_json))


@app.command("set")
def set_fields(
    who: Who,
    stripe_customer: Customer = None,
    no_stripe_customer: Annotated[
        bool, typer.Option("--no-stripe-customer", help="Unlink the customer: amounts accrue from then on.")
    ] = False,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Changes a user: the name, or the Stripe customer who pays."""
    run(
        users_command.set_fields(
            settings(),
            Console(),
            who=who,
            stripe_customer=stripe_customer,
            unlink=no_stripe_customer,
            name=name,
            as_json=as_json,
        )
    )
