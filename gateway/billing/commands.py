"""What `gateway billing` shows."""

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

from gateway.billing import cancelling, held
from gateway.billing.decisions import EVENTS_MAX, CreditDue, HeldEvent
from gateway.billing.held import Judged, WantedDecision
from gateway.cli.console import Console
from gateway.cli.csv_text import text_field
from gateway.cli.text import minute
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.kit.instants import rfc3339

HeldForm = Literal["table", "json", "csv"]
_COLUMNS: Final = (
    "identifier", "state", "customer", "customer_name", "emails", "meter", "hour", "usd", "age_hours", "reason",
    "attempts", "why",
)  # fmt: skip


async def list_held(settings: Settings, console: Console, *, form: HeldForm, now: datetime) -> None:
    """The events that wait for a person."""
    events, due = await held.list_held(settings)
    if form == "json":
        console.print_json([_plain(event, now) for event in events])
    elif form == "csv":
        console.write_lines(_csv(events, now))
    else:
        _show_held(console, events, due, now)


async def decide(
    settings: Settings, console: Console, wanted: WantedDecision, *, now: datetime | None, is_sure: bool, by: str | None
) -> None:
    """What a decision would do, or has done. Without `now` PostgreSQL's clock counts.

    Raises OptionError where something was refused.
    """
    judged = await held.decide(settings, wanted, now=now, is_sure=is_sure, by=by)
    for each in judged:
        _show_judged(console, each, wanted, is_sure=is_sure)
    fits = [each for each in judged if each.refusal is None]
    console.say(f"{len(fits)} of {len(judged)} event(s), {_usd(sum(each.event.value for each in fits))} USD")
    if len(judged) == EVENTS_MAX:
        console.say(f"Only the newest {EVENTS_MAX} were looked at; --state and --error choose others.")
    if not is_sure:
        console.say("Nothing was changed; --yes does it.")
    elif len(fits) < len(judged):
        raise OptionError(f"{len(judged) - len(fits)} event(s) were left as they are, for the reasons above")


async def cancel(
    settings: Settings, console: Console, identifier: str, why: str, *, now: datetime, is_sure: bool, by: str | None
) -> None:
    """That a delivered event is taken back at Stripe."""
    event = await cancelling.cancel_event(settings, identifier, why, now=now, is_sure=is_sure, by=by)
    console.say(event.identifier, f"  {_usd(event.value)} USD, {event.state}, {event.customer}")
    if is_sure:
        console.say("  cancelled at Stripe; its window is sent as a new event in the next minutes")
    else:
        console.say("  would be cancelled at Stripe", "Nothing was changed; --yes does it.")


async def settle_credit(
    settings: Settings,
    console: Console,
    customer: str,
    credit_note: str,
    why: str,
    *,
    now: datetime,
    is_sure: bool,
    by: str | None,
) -> None:
    """That a credit note has given a customer what was due."""
    given = (settings, customer, credit_note, why)
    for each in await cancelling.settle_credit(*given, now=now, is_sure=is_sure, by=by):
        console.say(f"{customer}, {each.meter}: {_usd(each.micro_usd)} USD are due")
    console.say(f"settled by {credit_note}" if is_sure else "Nothing was changed; --yes does it.")


def _show_judged(console: Console, each: Judged, wanted: WantedDecision, *, is_sure: bool) -> None:
    event = each.event
    console.say(event.identifier)
    about = f"  {_usd(event.value)} USD, {event.state}, {event.customer}, {minute(event.window_start)} UTC"
    console.say(f"{about}; Stripe's summary: {each.verdict}" if each.verdict else about)
    if each.refusal is not None:
        console.say(f"  not done: {each.refusal}")
    elif is_sure:
        console.say(f"  done: {wanted.action}" + (f", queued again: {each.replaced}" if each.replaced else ""))
    else:
        console.say(f"  would be done: {wanted.action}")


def _show_held(console: Console, events: Sequence[HeldEvent], due: Sequence[CreditDue], now: datetime) -> None:
    """Each identifier is whole on a line of its own: it has to be typed."""
    for event in events:
        who = ", ".join(text for text in (event.customer_name, event.emails) if text)
        console.say(event.identifier)
        whose = f"{event.customer} ({who})" if who else event.customer
        console.say(f"  {whose}, hour {minute(event.window_start)} UTC, {_age(event, now)} old")
        console.say(f"  {_usd(event.value)} USD, {event.state}: {event.last_error or 'no reason was recorded'}")
    if not events:
        console.say("No meter event waits for anybody.")
    for state in sorted({event.state for event in events}):
        own = [event.value for event in events if event.state == state]
        console.say(f"{state}: {len(own)} event(s), {_usd(sum(own))} USD")
    if events:
        console.say(f"in all: {len(events)} event(s), {_usd(sum(event.value for event in events))} USD")
    if len(events) == EVENTS_MAX:
        console.say(f"These are the newest {EVENTS_MAX}; `gateway billing status` has the sum of all.")
    for one in due:
        whose = f"{one.customer} ({one.name})" if one.name else one.customer
        console.say(f"credit due to {whose}: {_usd(one.nano // 1000)} USD, taken off later usage")


def _age(event: HeldEvent, now: datetime) -> str:
    hours = _hours(event, now)
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"


def _hours(event: HeldEvent, now: datetime) -> int:
    return int((now - event.created_at).total_seconds()) // 3600


def _plain(event: HeldEvent, now: datetime) -> dict[str, Any]:
    instants = {name: rfc3339(value) for name, value in event._asdict().items() if isinstance(value, datetime)}
    return event._asdict() | instants | {"usd": _usd(event.value), "age_hours": _hours(event, now)}


def _csv(events: Sequence[HeldEvent], now: datetime) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for event in events:
        texts = (event.identifier, event.state, event.customer, event.customer_name, event.emails, event.meter)
        figures = (rfc3339(event.window_start), _usd(event.value), _hours(event, now))
        writer.writerow([
            *map(text_field, texts), *figures, event.reason, event.attempts, text_field(event.last_error)
        ])  # fmt: skip
    return out.getvalue()


def _usd(micro: int) -> str:
    """Whole micro-USD as dollars, exact."""
    sign, digits = "-" if micro < 0 else "", f"{abs(micro):07d}"
    return f"{sign}{digits[:-6]}.{digits[-6:]}"
