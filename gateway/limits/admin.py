"""What an operator does with budgets and credit: what a user may spend, and has paid in advance (docs/limits.md).

Whether a call still fits is decided by the proxies, which read what is written here with the key.
"""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple, get_args

from gateway.accounts.identify import known_user
from gateway.accounts.payers import PayerStore
from gateway.accounts.store import Accounts, User
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.kit.ids import is_uuid
from gateway.limits.budgets import LIMIT_USD_MAX, Budget, Period
from gateway.limits.spending import BudgetRow, CreditEntry, Spending
from gateway.stores.one_connection import database
from gateway.stores.postgres import Pool
from gateway.trail.record import recording
from gateway.trail.store import Deed

_WHY: Final = "budgets are in PostgreSQL"
NANO: Final = 1_000_000_000
_TEXT_MAX: Final = {"--model": 256, "--note": 500, "--reference": 255}


class BudgetOptions(NamedTuple):
    """The budget that an operator wants."""

    user: str
    """An e-mail address or a UUID."""
    usd: Decimal
    period: Period
    soft: bool = False
    key: str | None = None
    """Our id of it or Unkey's."""
    meeting: str | None = None
    model: str | None = None


class SetBudget(NamedTuple):
    """A budget that was made, or whose limit was changed."""

    id: str
    owner: User
    budget: Budget
    usd: Decimal


class SpentBudget(NamedTuple):
    """A budget with what the ledger says is spent of it."""

    row: BudgetRow
    since: datetime
    """When its current period began."""
    limit_nano: int
    spent_nano: int


class AddedCredit(NamedTuple):
    """A credit entry, and what is left of all of them."""

    id: str | None
    """None where there was one with its reference already."""
    owner: User
    usd: Decimal
    left: Decimal


class Balance(NamedTuple):
    """A user's credit entries, oldest first, and what is left."""

    owner: User
    left: Decimal
    entries: list[CreditEntry]


def budget_options(
    *, user: str, limit: str, period: str, soft: bool, key: str | None, meeting: str | None, model: str | None
) -> BudgetOptions:
    """From what an operator typed. Raises OptionError."""
    usd = valid_usd("--limit", limit, least=Decimal(0))
    if period not in get_args(Period):
        raise OptionError(f"--period: {period!r} is not one of {', '.join(get_args(Period))}")
    if meeting is not None and not is_uuid(meeting):
        raise OptionError(f"--meeting: {meeting!r} is not the UUID of a meeting")
    named = None if model is None else _text("--model", model)
    return BudgetOptions(user, usd, period, soft, key, meeting, named)  # type: ignore[arg-type]  # looked at above


async def set_budget(settings: Settings, options: BudgetOptions) -> SetBudget:
    """Makes a budget or changes its limit. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool, recording(settings, pool) as record:
        accounts, spending = Accounts(record.connections), Spending(record.connections)
        owner = await known_user(accounts, options.user)
        budget = Budget(
            id="",
            user_id=owner.id,
            limit_nano=0,
            period=options.period,
            hard=not options.soft,
            since=datetime.min.replace(tzinfo=UTC),
            api_key_id=None if options.key is None else await _key_id(accounts, options.key),
            meeting_id=options.meeting,
            model=options.model,
        )
        before = await spending.same_budget(budget)
        made = await spending.set_budget(budget, options.usd)
        if made is None:
            raise OptionError(f"--key, --meeting: not of {owner.email}")
        await record.write(Deed("set", "budget", made, before, _as_set(budget, options.usd)))
    return SetBudget(made, owner, budget, options.usd)


async def list_budgets(
    settings: Settings, *, now: datetime, user: str | None = None, every: bool = False
) -> list[SpentBudget]:
    """Budgets of one user, or all, with what is spent of them. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        owner = None if user is None else await known_user(Accounts(pool), user)
        spending = Spending(pool)
        rows = await spending.budgets(None if owner is None else owner.id, inactive_too=every)
        return [await _spent(spending, row, now) for row in rows]


async def end_budget(settings: Settings, budget_id: str) -> None:
    """Takes a budget out of use; it stays in the table. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        if not is_uuid(budget_id) or not await _end(settings, pool, budget_id):
            raise OptionError(f"BUDGET: there is none with id {budget_id!r}; `gateway budgets list` has all of them")


async def _end(settings: Settings, pool: Pool, budget_id: str) -> bool:
    async with recording(settings, pool) as record:
        was_active = await Spending(record.connections).end_budget(budget_id)
        if was_active is not None:
            await record.write(Deed("end", "budget", budget_id, {"is_active": was_active}, {"is_active": False}))
    return was_active is not None


def credit_usd(amount: str) -> Decimal:
    """An amount that can be booked; negative takes back. Raises OptionError."""
    usd = valid_usd("AMOUNT", amount, least=Decimal(-LIMIT_USD_MAX))
    if not usd:
        raise OptionError("AMOUNT: it must not be 0 USD")
    return usd


async def add_credit(
    settings: Settings,
    *,
    user: str,
    usd: Decimal,
    note: str | None = None,
    reference: str | None = None,
    mode: str | None = None,
) -> AddedCredit:
    """Books money that a user has paid in advance. A user whose customer is invoiced needs `mode` prepaid: what credit
    pays is not invoiced then. Raises OptionError, ConfigError, DependencyDown."""
    if mode not in (None, "prepaid"):
        raise OptionError("--mode: prepaid, or leave it out; grants live at Stripe, where they are added")
    said_note = None if note is None else _text("--note", note)
    said_reference = None if reference is None else _text("--reference", reference)
    async with database(settings, _WHY) as pool:
        async with recording(settings, pool) as record:
            owner = await known_user(Accounts(record.connections), user)
            spending = Spending(record.connections)
            if await spending.has_grants(owner.id):
                raise OptionError(f"WHO: the customer of {owner.email} has credit grants at Stripe; grant it there")
            await _require_prepaid(PayerStore(record.connections), owner, mode)
            added = await spending.add_credit(owner.id, usd, said_note, said_reference)
            after = {"user_id": owner.id, "amount_usd": usd, "note": said_note, "reference": said_reference}
            if added is not None:
                await record.write(Deed("add", "credit", added, None, after))
            elif said_reference is not None:
                await _require_same(spending, said_reference, owner, usd)
        left = await Spending(pool).credit_left(owner.id)
    return AddedCredit(added, owner, usd, left)


async def _require_same(spending: Spending, reference: str, owner: User, usd: Decimal) -> None:
    """Only a repeat of the same entry adds nothing without being an error."""
    user_id, email, amount = await spending.with_reference(reference)
    if (user_id, amount) != (owner.id, usd):
        what = f"{reference!r} is of another entry, {amount} USD for {email}"
        raise OptionError(f"--reference: {what}. Nothing was added")


async def _require_prepaid(payers: PayerStore, owner: User, mode: str | None) -> None:
    """Credit and an invoice for the same call are never mixed without a decision."""
    if owner.stripe_customer_id is None:
        return
    (customer,) = await payers.find(owner.stripe_customer_id)
    if customer.mode == "postpaid" and mode is None:
        raise OptionError(
            f"{owner.email} is invoiced by {owner.stripe_customer_id}. Give --mode prepaid if the credit is to pay "
            "first and only what it does not cover is invoiced. Nothing was changed"
        )


async def list_credits(settings: Settings, *, user: str) -> Balance:
    """A user's entries and what is left. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        owner = await known_user(Accounts(pool), user)
        spending = Spending(pool)
        return Balance(owner, await spending.credit_left(owner.id), await spending.credits(owner.id))


def _as_set(budget: Budget, usd: Decimal) -> dict[str, Any]:
    return {
        "user_id": budget.user_id,
        "api_key_id": budget.api_key_id,
        "meeting_id": budget.meeting_id,
        "model": budget.model,
        "period": budget.period,
        "is_hard": budget.hard,
        "limit_usd": usd,
        "is_active": True,
    }


def valid_usd(option: str, text: str, *, least: Decimal) -> Decimal:
    """An amount with at most nine decimals. Raises OptionError."""
    try:
        usd = Decimal(text.strip())
    except InvalidOperation:
        raise OptionError(f"{option}: {text!r} is not an amount in USD (like 5 or 0.25)") from None
    if not usd.is_finite() or not least <= usd <= LIMIT_USD_MAX:
        raise OptionError(f"{option}: {least} to {LIMIT_USD_MAX} USD")
    if usd != usd.quantize(Decimal("1e-9")):
        raise OptionError(f"{option}: at most nine decimals, because amounts are exact to the nano-dollar")
    return usd


async def _spent(spending: Spending, row: BudgetRow, now: datetime) -> SpentBudget:
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
    spent, _, _ = await spending.read_spent(window)
    return SpentBudget(row, window.start, budget.limit_nano, spent)


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
