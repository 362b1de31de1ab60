"""`gateway plans …`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

import pricing
import pricing.data
from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.kit.errors import OptionError
from gateway.kit.instants import parse_instant
from gateway.plans import commands as plans_command
from gateway.plans.options import FILE_BYTES_MAX, PlanOptions, check_which, rates_of

app = typer.Typer(no_args_is_help=True, help="What customers pay for what calls cost (docs/plans.md).")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="PLAN", help="Its name.")]
User = Annotated[str | None, typer.Option(metavar="WHO", help="Only calls of this user: e-mail address or UUID.")]
Key = Annotated[str | None, typer.Option(metavar="KEY", help="Only calls with this key (key_… or UUID).")]
Model = Annotated[str | None, typer.Option(help="Only this model and its dated snapshots.")]
Endpoint = Annotated[str | None, typer.Option(help="Only this endpoint (chat, responses, embeddings …).")]
Yes = Annotated[bool, typer.Option("--yes", help="Make the change; otherwise it is only shown.")]


@app.command("set")
def set_plan(
    name: Name,
    markup: Annotated[str | None, typer.Option(metavar="FACTOR", help="OpenAI's price × this factor.")] = None,
    discount: Annotated[str | None, typer.Option(metavar="PERCENT", help="Per cent off OpenAI's price.")] = None,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Own prices, JSON: USD for each unit, by model and unit.")
    ] = None,
    otherwise: Annotated[
        str | None, typer.Option(metavar="FACTOR", help="What --prices lacks: OpenAI's price × this factor.")
    ] = None,
    free: Annotated[bool, typer.Option("--free", help="Nothing is charged.")] = False,
    user: User = None,
    customer: Annotated[
        str | None, typer.Option(metavar="CUSTOMER", help="Only calls of this customer's users (cus_… or UUID).")
    ] = None,
    key: Key = None,
    model: Model = None,
    endpoint: Endpoint = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="WHEN", help="Its first instant, UTC; default: in about 2 minutes.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Its end (exclusive); default: none.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Makes a plan, or a new version of it, which ends the one before it. Without scope it is for everybody."""
    check_which(model, endpoint)
    kind, rates = rates_of(
        pricing.parse(pricing.data.read_texts()),
        markup=markup,
        discount=discount,
        prices=None if prices is None else _read(prices),
        otherwise=otherwise,
        free=free,
    )
    options = PlanOptions(
        name,
        kind,
        rates,
        user=user,
        customer=customer,
        key=key,
        model=model,
        endpoint=endpoint,
        start=_instant(start, "--from"),
        until=_instant(until, "--until"),
    )
    run(plans_command.set_plan(settings(), Console(), options, apply=yes, as_json=as_json))


@app.command("list")
def list_plans(
    every: Annotated[bool, typer.Option("--all", help="Include versions that have ended.")] = False,
    as_json: Json = False,
) -> None:
    """Lists plans with what they are for and when they hold."""
    run(plans_command.list_plans(settings(), Console(), now=datetime.now(UTC), every=every, as_json=as_json))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="PLAN", help="Its name, or one version: NAME@2.")],
    as_json: Json = False,
) -> None:
    """Shows the versions of a plan with their rates, and who made them."""
    run(plans_command.show_plan(settings(), Console(), name, as_json=as_json))


@app.command()
def end(
    name: Name,
    at: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Its first instant without, UTC; default: in about 2 minutes.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Ends a plan: what is less specific holds then, or the setting billing.markup."""
    run(plans_command.end_plan(settings(), Console(), name, _instant(at, "--at"), apply=yes, as_json=as_json))


@app.command()
def explain(
    row: Annotated[str | None, typer.Argument(metavar="ROW", help="The id of a row of the ledger.")] = None,
    user: User = None,
    key: Key = None,
    model: Model = None,
    endpoint: Endpoint = None,
    at: Annotated[str | None, typer.Option(metavar="WHEN", help="When the call begins, UTC; default: now.")] = None,
    as_json: Json = False,
) -> None:
    """Says which plan holds for a call, or by what a row was billed, and lists all plans that were considered."""
    check_which(model, endpoint)
    options = PlanOptions("", "free", {}, user=user, key=key, model=model, endpoint=endpoint)
    if row is not None and any(each is not None for each in (user, key, model, endpoint, at)):
        raise OptionError("ROW: it says all of the call; leave out the options")
    instant = _instant(at, "--at")
    run(plans_command.explain(settings(), Console(), row, options, at=instant, as_json=as_json))


def _instant(text: str | None, option: str) -> datetime | None:
    return None if text is None else parse_instant(text, option)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            text = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise OptionError(f"--prices: {file} cannot be read: {error.strerror}") from None
    if len(text) > FILE_BYTES_MAX:
        raise OptionError(f"--prices: {file} has more than {FILE_BYTES_MAX} bytes")
    return text
