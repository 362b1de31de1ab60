"""`gateway billing …`."""

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any, Final, get_args

import typer

from gateway.billing import commands as billing_command
from gateway.billing import status_commands, unbilled_commands
from gateway.billing.decisions import Action
from gateway.billing.held import WantedDecision
from gateway.billing.outbox import HELD_STATES
from gateway.cli.command import run, settings
from gateway.cli.console import Console
from gateway.kit.errors import OptionError
from gateway.kit.instants import parse_period

app = typer.Typer(no_args_is_help=True, help="Stripe meter events that wait for a person (docs/billing.md).")

TEXT_MAX: Final = 1000
CANCEL: Final = "cancel"
"""What is done with an event that was delivered, not with one that is held."""
ACTIONS: Final = (*get_args(Action), CANCEL)
By = Annotated[str | None, typer.Option(help="Who decides; default: GATEWAY_OPERATOR, else your login.")]
Why = Annotated[str | None, typer.Option(metavar="TEXT", help="The reason, for whoever asks later.")]
Force = Annotated[bool, typer.Option("--force", help="Decide against what Stripe's summaries say; it is recorded.")]


@app.command()
def held(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Lists the meter events that wait for a decision: refused, in doubt, or not sendable; and credit that is due."""
    if as_json and as_csv:
        raise OptionError("--json and --csv: give one")
    form: billing_command.HeldForm = "json" if as_json else "csv" if as_csv else "table"
    run(billing_command.list_held(settings(), Console(), form=form, now=datetime.now(UTC)))


@app.command()
def decide(
    words: Annotated[
        list[str],
        typer.Argument(metavar="ACTION [ID]", help="reissue, delivered, settle, write-off, cancel; an event"),
    ],
    everything: Annotated[bool, typer.Option("--all", help="All events that fit --state and --error.")] = False,
    state: Annotated[str | None, typer.Option(help="Of --all: rejected, unknown or unreportable.")] = None,
    error: Annotated[str | None, typer.Option(metavar="TEXT", help="Of --all: whose last error has this text.")] = None,
    why: Why = None,
    credit_note: Annotated[
        str | None, typer.Option(metavar="ID", help="Of settle cus_…: the credit note that gives what is due.")
    ] = None,
    reference: Annotated[str | None, typer.Option(metavar="ID", help="Of settle: in_…, ii_… or cn_….")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; otherwise it is shown and nothing is changed.")] = False,
    force: Force = False,
    by: By = None,
) -> None:
    """Decides what becomes of held events; shows it first, and asks Stripe whether it has counted them."""
    actions, names = ([word for word in words if (word in ACTIONS) == is_one] for is_one in (True, False))
    if len(actions) != 1 or len(names) > 1:
        raise OptionError(f"ACTION: one of {', '.join(ACTIONS)}, and one ID or --all")
    if bool(names) == everything:
        raise OptionError("give the ID of one event, or --all")
    if state is not None and state not in HELD_STATES:
        raise OptionError(f"--state: {state!r} is not one of {', '.join(HELD_STATES)}")
    if actions == [CANCEL]:
        run(_cancel(names, _valid_why(why), is_sure=yes, by=by))
        return
    action = next(each for each in get_args(Action) if each == actions[0])
    if credit_note is not None:
        run(_settle_credit(action, names, credit_note, _valid_why(why), is_sure=yes, by=by))
        return
    if (action == "settle") != (reference is not None):
        raise OptionError("--reference: settle needs Stripe's id of what took its place; nothing else does")
    states = HELD_STATES if state is None else (state,)
    wanted = WantedDecision(action, _valid_why(why), reference, names[0] if names else None, states, error, force)
    run(billing_command.decide(settings(), Console(), wanted, now=None, is_sure=yes, by=by))


def _cancel(names: list[str], why: str, *, is_sure: bool, by: str | None) -> Coroutine[Any, Any, None]:
    if not names:
        raise OptionError("cancel: give the ID of one event")
    return billing_command.cancel(settings(), Console(), names[0], why, now=datetime.now(UTC), is_sure=is_sure, by=by)


def _settle_credit(
    action: Action, names: list[str], credit_note: str, why: str, *, is_sure: bool, by: str | None
) -> Coroutine[Any, Any, None]:
    if action != "settle" or not names:
        raise OptionError("--credit-note: only with settle and the id of a customer, cus_…")
    given = (names[0], credit_note, why)
    return billing_command.settle_credit(settings(), Console(), *given, now=datetime.now(UTC), is_sure=is_sure, by=by)


@app.command()
def again(identifier: str, why: Why = None, force: Force = False, by: By = None) -> None:
    """The same as `decide reissue IDENTIFIER --yes`."""
    _decide_one("reissue", identifier, why, force, by)


@app.command()
def delivered(identifier: str, why: Why = None, force: Force = False, by: By = None) -> None:
    """The same as `decide delivered IDENTIFIER --yes`."""
    _decide_one("delivered", identifier, why, force, by)


def _decide_one(action: Action, identifier: str, why: str | None, force: bool, by: str | None) -> None:
    said = _valid_why(why or "no reason was given")
    wanted = WantedDecision(action, said, identifier=identifier, is_forced=force)
    run(billing_command.decide(settings(), Console(), wanted, now=None, is_sure=True, by=by))


def _valid_why(why: str | None) -> str:
    if why is None or not why.strip() or len(why) > TEXT_MAX or not why.isprintable():
        raise OptionError(f"--why: a reason of 1 to {TEXT_MAX} printable characters")
    return why.strip()


@app.command()
def status(
    month: Annotated[
        str | None, typer.Option(help="Only what was booked in this month: 2026-10, last-month. Default: everything.")
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(metavar="WHAT", help="Also by customer; the margin by plan (reads every row).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Shows the bridge from our cost to the money at Stripe; exits 1 where an amount is unexplained."""
    if unknown := set(by or ()) - {"customer", "plan"}:
        raise OptionError(f"--by: {', '.join(sorted(unknown))}: it is customer or plan")
    span = None if month is None else parse_period(month, "--month", datetime.now(UTC))
    shown = status_commands.show_status(settings(), Console(), span, by=frozenset(by or ()), as_json=as_json)
    raise typer.Exit(run(shown))


@app.command()
def unbilled(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Lists users with amounts that nobody pays, and how old these are."""
    if as_json and as_csv:
        raise OptionError("--json and --csv: give one")
    now = datetime.now(UTC)
    run(unbilled_commands.show_unbilled(settings(), Console(), now=now, as_json=as_json, as_csv=as_csv))
