"""`gateway budgets …`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.limits import commands as budgets_command
from gateway.limits.admin import budget_options

app = typer.Typer(no_args_is_help=True, help="What users, keys, meetings and models may spend (docs/limits.md).")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("set")
def set_budget(
    user: Annotated[str, typer.Option(metavar="WHO", help="E-mail address or UUID of the user.")],
    limit: Annotated[str, typer.Option(metavar="USD", help="What may be spent in the period; nine decimals at most.")],
    period: Annotated[str, typer.Option(help="day, month (both UTC) or total.")] = "month",
    soft: Annotated[bool, typer.Option("--soft", help="Warn only.")] = False,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Only calls with this key (key_… or UUID).")] = None,
    meeting: Annotated[str | None, typer.Option(metavar="UUID", help="Only calls of this meeting.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model and its dated snapshots.")] = None,
    as_json: Json = False,
) -> None:
    """Creates a budget, or changes the limit of the one with the same scope and period."""
    options = budget_options(user=user, limit=limit, period=period, soft=soft, key=key, meeting=meeting, model=model)
    run(budgets_command.set_budget(settings(), Console(), options, as_json=as_json))


@app.command("list")
def list_budgets(
    user: Annotated[str | None, typer.Option(metavar="WHO", help="Only of this user.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Include ended budgets.")] = False,
    as_json: Json = False,
) -> None:
    """Lists budgets with the amount spent according to the ledger."""
    now = datetime.now(UTC)
    run(budgets_command.list_budgets(settings(), Console(), now=now, user=user, every=every, as_json=as_json))


@app.command()
def end(budget: Annotated[str, typer.Argument(metavar="BUDGET", help="Its id.")], as_json: Json = False) -> None:
    """Ends a budget."""
    run(budgets_command.end_budget(settings(), Console(), budget_id=budget, as_json=as_json))
