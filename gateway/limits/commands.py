"""`gateway budgets` and `gateway credits`: what a user may spend, and what they have paid in advance (docs/limits.md).

Whether a call still fits is decided by the proxies, which read what is written here with the key.
"""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, get_args

from gateway.accounts.identify import known_user
from gateway.accounts.store import Accounts
from gateway.cli.console import Console, TextTable
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.kit.ids import is_uuid
from gateway.kit.instants import rfc3339
from gateway.limits.budgets import LIMIT_USD_MAX, Budget, Period
from gateway.limits.spending import BudgetRow, CreditEntry, Spending
from gateway.stores.one_connection import database
from gateway.stores.postgres import Pool
from pricing import nano_text

_WHY: Final = "budgets are in PostgreSQL"
NANO: Final = 1_000_000_000
_TEXT_MAX: Final = {"--model": 256, "--note": 500, "--reference": 255}


async def set_budget(
    settings: Settings,
    console: Console,
    *,
    user: str,
    limit: str,
    period: str,
    soft: bool = False,
    key: str | None = None,
    meeting: str | None = None,
    model: str | None = None,
    as_json: bool = False,
) -> str:
    """Makes a budget or changes its limit, and returns its id. Raises OptionError, ConfigError, DependencyDown."""
    usd = valid_usd("--limit", limit, least=Decimal(0))
    if period not in get_args(Period):
        raise OptionError(f"--period: {period!r} is none of {', '.join(get_args(Period))}")
    if meeting is not None and not is_uuid(meeting):
        raise OptionError(f"--meeting: {meeting!r} is no UUID of a meeting")
    async with database(settings, _WHY) as pool:
        accounts = Accounts(pool)
        owner = await known_user(accounts, user)
        budget = Budget(
            id="",
            user_id=owner.id,
            limit_nano=0,
            period=period,  # type: ignore[arg-type]  # looked at above
            hard=not soft,
            since=datetime.min.replace(tzinfo=UTC),
            api_key_id=None if key is None else await _key_id(accounts, key),
            meeting_id=meeting,
            model=None if model is None else _text("--model", model),
        )
        made = await Spending(pool).set_budget(budget, usd)
    if made is None:
        raise OptionError(f"--key, --meeting: not of {owner.email}")
    kind = "soft" if soft else "hard"
    said = f"{budget.name().capitalize()} of {owner.email}: {usd} USD, {kind}, id {made}. {_takes_effect(settings)}"
    _say(console, {"id": made, "user_id": owner.id, "limit_usd": str(usd)}, said, as_json=as_json)
    return made


async def list_budgets(
    settings: Settings,
    console: Console,
    *,
    now: datetime,
    user: str | None = None,
    every: bool = False,
    as_json: bool = False,
) -> list[dict[str, Any]]:
    """Prints budgets with what the ledger says is spent of them. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        owner = None if user is None else await known_user(Accounts(pool), user)
        spending = Spending(pool)
        rows = await spending.budgets(None if owner is None else owner.id, inactive_too=every)
        listed = [await _described(spending, row, now) for row in rows]
    if as_json:
        console.print_json(listed)
    elif listed:
        console.print_table(_table(listed))
    else:
        console.say("No budgets. `gateway budgets set` makes one.")
    return listed


async def end_budget(settings: Settings, console: Console, *, budget_id: str, as_json: bool = False) -> None:
    """Takes a budget out of use; it stays in the table. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        if not is_uuid(budget_id) or not await Spending(pool).end_budget(budget_id):
            raise OptionError(f"BUDGET: there is none with id {budget_id!r}; `gateway budgets list` has all of them")
    _say(console, {"id": budget_id}, f"Budget {budget_id} is ended. {_takes_effect(settings)}", as_json=as_json)


async def add_credit(
    settings: Settings,
    console: Console,
    *,
    user: str,
    amount: str,
    now: datetime,
    note: str | None = None,
    reference: str | None = None,
    as_json: bool = False,
) -> Decimal:
    """Books money that a user has paid in advance (negative: takes it back); returns what is left of it all.

    Raises OptionError, ConfigError, DependencyDown.
    """
    usd = valid_usd("AMOUNT", amount, least=Decimal(-LIMIT_USD_MAX))
    if not usd:
        raise OptionError("AMOUNT: 0 USD is no credit")
    said_note = None if note is None else _text("--note", note)
    said_reference = None if reference is None else _text("--reference", reference)
    async with database(settings, _WHY) as pool:
        owner = await known_user(Accounts(pool), user)
        added = await Spending(pool).add_credit(owner.id, usd, said_note, said_reference)
        left, _ = await _balance(pool, owner.id, now)
    done = f"Added {usd} USD" if added else f"There is an entry with reference {reference!r} already: nothing added"
    said = f"{done}; {owner.email} has {left} USD left. {_takes_effect(settings)}"
    _say(console, {"id": added, "user_id": owner.id, "left_usd": str(left)}, said, as_json=as_json)
    return left


async def list_credits(
    settings: Settings, console: Console, *, user: str, now: datetime, as_json: bool = False
) -> list[CreditEntry]:
    """Prints a user's entries and what is left. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        owner = await known_user(Accounts(pool), user)
        left, entries = await _balance(pool, owner.id, now)
    if as_json:
        plain = [
            {**entry._asdict(), "amount_usd": str(entry.amount_usd), "created_at": rfc3339(entry.created_at)}
            for entry in entries
        ]
        console.print_json({"left_usd": str(left), "entries": plain})
        return entries
    title = f"{owner.email}: {left} USD left" if entries else f"{owner.email} pays afterwards"
    table = TextTable(title=title)
    for name in ("when (UTC)", "USD", "note", "reference"):
        table.add_column(name, right=name == "USD")
    for entry in entries:
        when = rfc3339(entry.created_at)
        table.add_row(when, str(entry.amount_usd), entry.note or "", entry.reference or "")
    console.print_table(table)
    return entries


def valid_usd(option: str, text: str, *, least: Decimal) -> Decimal:
    """An amount with at most nine decimals. Raises OptionError."""
    try:
        usd = Decimal(text.strip())
    except InvalidOperation:
        raise OptionError(f"{option}: {text!r} is no amount of USD (like 5 or 0.25)") from None
    if not usd.is_finite() or not least <= usd <= LIMIT_USD_MAX:
        raise OptionError(f"{option}: {least} to {LIMIT_USD_MAX} USD")
    if usd != usd.quantize(Decimal("1e-9")):
        raise OptionError(f"{option}: at most nine decimals, because amounts are exact to the nano-dollar")
    return usd


async def _balance(pool: Pool, user_id: str, now: datetime) -> tuple[Decimal, list[CreditEntry]]:
    spending = Spending(pool)
    entries = await spending.credits(user_id)
    if not entries:
        return Decimal(0), []
    paid = sum((entry.amount_usd for entry in entries), Decimal(0))
    credit = Budget(
        id=f"credit:{user_id}",
        user_id=user_id,
        limit_nano=int(paid * NANO),
        period="total",
        hard=True,
        since=min(entry.created_at for entry in entries),
        counts="billed_usd",
    )
    spent, _ = await spending.read_spent(credit.window(now))
    return paid - Decimal(spent) / NANO, entries


async def _described(spending: Spending, row: BudgetRow, now: datetime) -> dict[str, Any]:
    budget = Budget(
        id=row.id,
        user_id=row.user_id,
        limit_nano=int(row.limit_usd * NANO),
        period=row.period,  # type: ignore[arg-type]  # the table's own check
        hard=row.is_hard,
        since=row.created_at,
        api_key_id=row.api_key_id,
        meeting_id=row.meeting_id,
        model=row.model,
    )
    window = budget.window(now)
    spent, _ = await spending.read_spent(window)
    return {
        "id": row.id,
        "user": row.email,
        "user_id": row.user_id,
        "api_key_id": row.api_key_id,
        "meeting_id": row.meeting_id,
        "model": row.model,
        "period": row.period,
        "since": rfc3339(window.start),
        "kind": "hard" if row.is_hard else "soft",
        "limit_usd": nano_text(budget.limit_nano),
        "spent_usd": nano_text(spent),
        "is_active": row.is_active,
    }


async def _key_id(accounts: Accounts, reference: str) -> str:
    key = await accounts.key(reference)
    if key is None:
        raise OptionError(f"--key: there is no key {reference!r}; `gateway keys list --all` has all of them")
    return key.id


def _text(option: str, text: str) -> str:
    cleaned, most = text.strip(), _TEXT_MAX[option]
    if not 0 < len(cleaned) <= most or not cleaned.isprintable():
        raise OptionError(f"{option}: 1 to {most} printable characters on one line")
    return cleaned


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


def _say(console: Console, plain: dict[str, Any], said: str, *, as_json: bool) -> None:
    if as_json:
        console.print_json(plain, indent=None)
    else:
        console.say(said)
