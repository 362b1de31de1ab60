"""`gateway credits …`."""

from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.limits import commands as budgets_command
from gateway.limits.admin import credit_usd

app = typer.Typer(no_args_is_help=True, help="What users have paid in advance (docs/limits.md).")

Who = Annotated[str, typer.Argument(metavar="WHO", help="E-mail address or UUID of the user.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def add(
    who: Who,
    amount: Annotated[str, typer.Argument(metavar="USD", help="Nine decimals at most; after `--`, negative.")],
    note: Annotated[str | None, typer.Option(help="A note for people.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="A unique reference, which makes the command idempotent.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="prepaid: for a user whose customer is invoiced until now; credit pays first then."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Adds prepaid money. From a user's first entry on, calls are paid from it and refused when it is used up."""
    run(
        budgets_command.add_credit(
            settings(),
            Console(),
            user=who,
            usd=credit_usd(amount),
            note=note,
            reference=reference,
            mode=mode,
            as_json=as_json,
        )
    )


@app.command("list")
def list_credits(who: Who, as_json: Json = False) -> None:
    """Lists a user's entries, and what is left."""
    run(budgets_command.list_credits(settings(), Console(), user=who, as_json=as_json))
