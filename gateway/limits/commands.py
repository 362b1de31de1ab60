"""What `gateway budgets` and `gateway credits` show."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from gateway.cli.console import Console, TextTable
from gateway.config.settings import Settings
from gateway.kit.instants import rfc3339
from gateway.limits import admin
from gateway.limits.admin import BudgetOptions, SpentBudget
from pricing import nano_text


async def set_budget(settings: Settings, console: Console, options: BudgetOptions, *, as_json: bool) -> None:
    """The budget that was set."""
    done = await admin.set_budget(settings, options)
    kind = "hard" if done.budget.hard else "soft"
    said = f"{done.budget.name().capitalize()} of {done.owner.email}: {done.usd} USD, {kind}, id {done.id}."
    plain = {"id": done.id, "user_id": done.owner.id, "limit_usd": str(done.usd)}
    console.answer(plain, f"{said} {_takes_effect(settings)}", as_json=as_json)


async def list_budgets(
    settings: Settings, console: Console, *, now: datetime, user: str | None, every: bool, as_json: bool
) -> None:
    """Budgets with what is spent of them."""
    listed = [_plain(each) for each in await admin.list_budgets(settings, now=now, user=user, every=every)]
    if as_json:
        console.print_json(listed)
    elif listed:
        console.print_table(_table(listed))
    else:
        console.say("No budgets. `gateway budgets set` makes one.")


async def end_budget(settings: Settings, console: Console, *, budget_id: str, as_json: bool) -> None:
    """That it is ended."""
    await admin.end_budget(settings, budget_id)
    console.answer({"id": budget_id}, f"Budget {budget_id} is ended. {_takes_effect(settings)}", as_json=as_json)


async def add_credit(
    settings: Settings,
    console: Console,
    *,
    user: str,
    usd: Decimal,
    note: str | None,
    reference: str | None,
    mode: str | None,
    as_json: bool,
) -> None:
    """What was added, and what is left."""
    done = await admin.add_credit(settings, user=user, usd=usd, note=note, reference=reference, mode=mode)
    said = f"Added {done.usd} USD"
    if not done.id:
        said = f"There is an entry with reference {reference!r} already: nothing added"
    said += f"; {done.owner.email} has {done.left} USD left. {_takes_effect(settings)}"
    plain = {"id": done.id, "user_id": done.owner.id, "left_usd": str(done.left)}
    console.answer(plain, said, as_json=as_json)


async def list_credits(settings: Settings, console: Console, *, user: str, as_json: bool) -> None:
    """A user's entries and what is left."""
    owner, left, entries = await admin.list_credits(settings, user=user)
    if as_json:
        plain = [
            {**entry._asdict(), "amount_usd": str(entry.amount_usd), "created_at": rfc3339(entry.created_at)}
            for entry in entries
        ]
        console.print_json({"left_usd": str(left), "entries": plain})
        return
    table = TextTable(title=f"{owner.email}: {left} USD left" if entries else f"{owner.email} pays afterwards")
    for name in ("when (UTC)", "USD", "note", "reference"):
        table.add_column(name, right=name == "USD")
    for entry in entries:
        when = rfc3339(entry.created_at)
        table.add_row(when, str(entry.amount_usd), entry.note or "", entry.reference or "")
    console.print_table(table)


def _plain(spent: SpentBudget) -> dict[str, Any]:
    row = spent.row
    return {
        "id": row.id,
        "user": row.email,
        "user_id": row.user_id,
        "api_key_id": row.api_key_id,
        "meeting_id": row.meeting_id,
        "model": row.model,
        "period": row.period,
        "since": rfc3339(spent.since),
        "kind": "hard" if row.is_hard else "soft",
        "limit_usd": nano_text(spent.limit_nano),
        "spent_usd": nano_text(spent.spent_nano),
        "is_active": row.is_active,
    }


def _takes_effect(settings: Settings) -> str:
    return f"Proxies know at the latest {settings.keys.fresh_s:g} s after they last looked at the key."


def _table(listed: list[dict[str, Any]]) -> TextTable:
    table = TextTable()
    scopes = [name for name in ("model", "api_key_id", "meeting_id") if any(each[name] for each in listed)]
    columns = ("user", "period", "kind", "limit_usd", "spent_usd", *scopes, "id")
    for name in columns:
        is_money = name.endswith("usd")
        # Never cut: ids are copied from here, and somebody signs the amounts.
        table.add_column(name.replace("_usd", " USD"), right=is_money, no_wrap=is_money)
    for each in listed:
        table.add_row(*(str(each[name] or "") for name in columns), style=None if each["is_active"] else "dim")
    return table
