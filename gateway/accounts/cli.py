"""`gateway users …`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.accounts import commands as users_command
from gateway.accounts.cost_centres import cost_centre_options
from gateway.accounts.link import link_options
from gateway.accounts.users import valid_customer
from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.kit.errors import OptionError
from gateway.kit.instants import parse_instant

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
    cost_centre: Annotated[
        str | None, typer.Option(metavar="CODE", help="Where the cost belongs, for reports; empty: nowhere.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="DATE", help="From when on; default: now, for a cost centre today (UTC)."),
    ] = None,
    accrued: Annotated[
        str | None, typer.Option(help="What becomes of what has accrued until now: bill, settle or write-off.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="With settle: the invoice or credit note.")] = None,
    why: Annotated[str | None, typer.Option(help="With write-off: the reason.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="How the customer pays: postpaid, prepaid (credit first) or grants (at Stripe).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do what the preview shows.")] = False,
    as_json: Json = False,
) -> None:
    """Changes a user: the name, the Stripe customer who pays, the cost centre."""
    now = datetime.now(UTC)
    begins = None if since is None else parse_instant(since, "--from")
    payer = None
    # An empty id is an error: it may be a variable that a script has not set, and unlinking stops all billing.
    if stripe_customer is not None and no_stripe_customer:
        raise OptionError("--stripe-customer and --no-stripe-customer contradict each other: give one")
    if stripe_customer is not None or no_stripe_customer:
        customer = None if stripe_customer is None else valid_customer(stripe_customer)
        pays_since = None if customer is None else begins
        payer = link_options(customer, pays_since, accrued, reference, why, mode, yes=yes)
    elif accrued or mode:
        raise OptionError("--accrued and --mode belong to --stripe-customer")
    centre = None if cost_centre is None else cost_centre_options(cost_centre, begins, now)
    run(
        users_command.set_fields(
            settings(), Console(), who=who, payer=payer, name=name, cost_centre=centre, as_json=as_json
        )
    )
