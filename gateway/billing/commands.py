"""What `gateway billing` shows."""

from datetime import datetime
from typing import Any

from gateway.billing import held
from gateway.billing.outbox import Held
from gateway.cli.console import Console, TextTable
from gateway.config.settings import Settings


async def list_held(settings: Settings, console: Console, *, as_json: bool) -> None:
    """The events that wait for a person."""
    events = await held.list_held(settings)
    if as_json:
        console.print_json([_plain(event) for event in events])
        return
    if not events:
        console.say("No meter event waits for anybody.")
        return
    table = TextTable("identifier", "state", "USD", "why")
    for event in events:
        table.add_row(event.identifier, event.state, _usd(event.value), event.last_error or "")
    console.print_table(table)


async def requeue(settings: Settings, console: Console, *, identifier: str, now: datetime) -> None:
    """Under which identifier an event is queued again."""
    console.say(f"Queued again as {await held.requeue(settings, identifier=identifier, now=now)}")


async def mark_delivered(settings: Settings, console: Console, *, identifier: str, now: datetime) -> None:
    """That an event counts as sent."""
    await held.mark_delivered(settings, identifier=identifier, now=now)
    console.say(f"{identifier} counts as sent")


def _plain(event: Held) -> dict[str, Any]:
    instants = {name: value.isoformat() for name, value in event._asdict().items() if isinstance(value, datetime)}
    return event._asdict() | instants | {"user_id": str(event.user_id)}


def _usd(micro: int) -> str:
    """Whole micro-USD as dollars, exact."""
    sign, digits = "-" if micro < 0 else "", f"{abs(micro):07d}"
    return f"{sign}{digits[:-6]}.{digits[-6:]}"
