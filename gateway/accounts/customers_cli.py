"""`gateway customers …`."""

from typing import Annotated, Any

import typer

from gateway.accounts import customers
from gateway.accounts.customers import CustomerChange
from gateway.accounts.payers import CustomerRow
from gateway.cli.command import run, settings
from gateway.cli.console import Console, TextTable
from gateway.cli.text import minute
from gateway.config.settings import Settings
from gateway.kit.instants import rfc3339
from pricing import nano_text

app = typer.Typer(no_args_is_help=True, help="Who pays for users, and how (docs/billing.md).")

Name = Annotated[str, typer.Argument(metavar="CUSTOMER", help="Our id, Stripe's (cus_…), or its name.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_customers(as_json: Json = False) -> None:
    """Lists customers, with the number of users that they pay for."""
    run(_list(settings(), Console(), as_json=as_json))


@app.command()
def show(customer: Name, as_json: Json = False) -> None:
    """Shows a customer, and from when to when it pays for which users."""
    run(_show(settings(), Console(), customer, as_json=as_json))


@app.command("set")
def set_customer(
    customer: Name,
    name: Annotated[str | None, typer.Option(help="For reports and statements; empty: none.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="postpaid (invoice), prepaid (credit first) or grants (credit at Stripe).")
    ] = None,
    currency: Annotated[str | None, typer.Option(help="Of its invoices at Stripe; amounts here stay USD.")] = None,
    tax_note: Annotated[str | None, typer.Option(help="For statements; empty: none.")] = None,
    as_json: Json = False,
) -> None:
    """Changes a customer."""
    change = CustomerChange(name, mode, currency, tax_note)
    run(_set(settings(), Console(), customer, change, as_json=as_json))


async def _list(here: Settings, console: Console, *, as_json: bool) -> None:
    found = await customers.list_customers(here)
    if as_json:
        console.print_json([_plain(customer) | {"users": users} for customer, users in found])
        return
    if not found:
        console.say("No customers. `gateway users set WHO --stripe-customer cus_…` makes one.")
        return
    table = TextTable("customer", "name", "mode", "currency", "users", "since (UTC)")
    for customer, users in found:
        who = (customer.stripe_customer_id or customer.id, customer.name or "–")
        table.add_row(*who, customer.mode, customer.currency, f"{users:,}", minute(customer.created_at))
    console.print_table(table)


async def _show(here: Settings, console: Console, name: str, *, as_json: bool) -> None:
    shown = await customers.show_customer(here, name=name)
    plain = _plain(shown.customer) | {"credit_left_usd": nano_text(shown.credit_nano)}
    if shown.stripe_credit is not None:
        left, asked_at = shown.stripe_credit
        plain |= {"stripe_credit_left_usd": nano_text(left), "stripe_credit_read_at": rfc3339(asked_at)}
    periods = [
        each | {"valid_from": rfc3339(each["valid_from"]), "valid_to": rfc3339(each["valid_to"])}
        for each in shown.users
    ]
    if as_json:
        console.print_json(plain | {"users": periods})
        return
    for field, value in plain.items():
        if value is not None:
            console.say(f"{field:<24}{value}")
    table = TextTable("user", "from (UTC)", "until (UTC)", "accrued before")
    for each in shown.users:
        begins = "the beginning" if each["valid_from"] is None else minute(each["valid_from"])
        table.add_row(each["email"], begins, minute(each["valid_to"]), each["accrued"] or "–")
    console.print_table(table)


async def _set(here: Settings, console: Console, name: str, change: CustomerChange, *, as_json: bool) -> None:
    after = await customers.set_customer(here, name=name, change=change)
    title = after.name or after.stripe_customer_id or after.id
    console.answer(_plain(after), f"{title}: {after.mode}, {after.currency}.", as_json=as_json)


def _plain(customer: CustomerRow) -> dict[str, Any]:
    return customer._asdict() | {"created_at": rfc3339(customer.created_at)}
