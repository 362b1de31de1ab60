"""What an operator does with plans: makes versions of them, ends them, and asks which one holds (docs/plans.md).

A version never changes. A new one of the same plan ends the one before it at its own start, in the same transaction.
"""

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from gateway.accounts.identify import known_user
from gateway.accounts.store import Accounts, KeyRow
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.kit.ids import is_uuid
from gateway.kit.instants import Period, parse_period, rfc3339
from gateway.plans.options import PlanOptions
from gateway.plans.preview import UserChange, changes_of
from gateway.plans.store import BilledRow, PlanRow, Plans
from gateway.stores.one_connection import database
from gateway.stores.postgres import Connections
from gateway.trail.record import recording
from gateway.trail.store import Deed
from gateway.usage.plan_store import PlanStore
from gateway.usage.plans import LEAD, PlanBook, PlanError, PlanVersion, Terms, bill, check_plan, markup_terms, terms_of

_WHY: Final = "plans are in PostgreSQL"
START_AHEAD: Final = timedelta(seconds=120)
"""How far ahead a start is when nobody says: the next full minute after that."""
NANO: Final = 1_000_000_000


class PlanChange(NamedTuple):
    """A change of plans, made or only shown."""

    plan: PlanVersion
    """The version that is made or ended, as it is afterwards."""
    ended: PlanVersion | None
    """The version that it takes the place of, as it is afterwards."""
    month: Period
    users: list[UserChange] | None
    """What it would have done in that month; None when nobody asked."""
    is_made: bool


class Candidate(NamedTuple):
    """A plan that may hold for a call, and whether it does."""

    plan_version: str
    since: datetime
    until: datetime | None
    holds: bool


class Explanation(NamedTuple):
    """What a call is billed by, and why."""

    at: datetime
    terms: Terms
    candidates: list[Candidate]
    row: BilledRow | None = None
    derived_nano: int | None = None
    """What the row's own plan makes of its cost; None where it does not say by what it was billed."""


async def set_plan(settings: Settings, options: PlanOptions, *, apply: bool) -> PlanChange:
    """Makes a version of a plan, or shows what it would do. Raises OptionError, ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        if not apply:
            plan, ended = await _next_version(pool, options)
            month, users = await _preview(pool, settings, plan, ended)
            return PlanChange(plan, ended, month, users, is_made=False)
        async with recording(settings, pool) as record:
            store = Plans(record.connections)
            await store.lock()
            plan, ended = await _next_version(record.connections, options)
            if ended is not None and ended.valid_to is not None:
                await store.end(ended.name, ended.version, ended.valid_to, record.actor.name)
            await store.insert(plan, record.actor.name)
            before = None if ended is None else values_of(ended)
            await record.write(Deed("set", "plan", plan.plan_version, before, values_of(plan)))
    return PlanChange(plan, ended, _last_month(plan.valid_from), None, is_made=True)


async def end_plan(settings: Settings, name: str, at: datetime | None, *, apply: bool) -> PlanChange:
    """Sets the end of the version that has none, or shows what that would do. Raises as `set_plan` does."""
    async with database(settings, _WHY) as pool:
        if not apply:
            ended = await _ended(pool, name, at)
            month, users = await _preview(pool, settings, None, ended)
            return PlanChange(ended, None, month, users, is_made=False)
        async with recording(settings, pool) as record:
            store = Plans(record.connections)
            await store.lock()
            ended = await _ended(record.connections, name, at)
            assert ended.valid_to is not None
            await store.end(ended.name, ended.version, ended.valid_to, record.actor.name)
            before = values_of(msgspec.structs.replace(ended, valid_to=None))
            await record.write(Deed("end", "plan", ended.plan_version, before, values_of(ended)))
    return PlanChange(ended, None, _last_month(ended.valid_from), None, is_made=True)


async def list_plans(settings: Settings, *, now: datetime, every: bool) -> list[PlanRow]:
    """Versions that hold now or later, or all there have ever been."""
    async with database(settings, _WHY) as pool:
        rows = await Plans(pool).rows()
    return [row for row in rows if every or _is_ahead(row.plan, now)]


async def show_plan(settings: Settings, name: str) -> list[PlanRow]:
    """All versions of `name`, or the one of `name@version`. Raises OptionError."""
    plain, _, version = name.partition("@")
    async with database(settings, _WHY) as pool:
        rows = await Plans(pool).rows(plain)
    found = [row for row in rows if version in ("", str(row.plan.version))]
    if not found:
        raise OptionError(f"PLAN: there is none called {name!r}; `gateway plans list --all` has all of them")
    return found


async def explain_call(settings: Settings, options: PlanOptions, *, at: datetime | None) -> Explanation:
    """Which plan holds for a call of this user, key, model and endpoint. Raises OptionError."""
    if options.user is None and options.key is None:
        raise OptionError("ROW, --user or --key is needed")
    async with database(settings, _WHY) as pool:
        accounts = Accounts(pool)
        key = None if options.key is None else await _known_key(accounts, options.key)
        user_id = (await known_user(accounts, options.user)).id if options.user is not None else None
        if key is not None and user_id not in (None, key.user_id):
            raise OptionError(f"--key: it is not of {options.user}")
        store = PlanStore(pool)
        return _explain(
            PlanBook(await store.every(), (await store.live()).payers),
            markup_terms(settings.billing.markup),
            at or await Plans(pool).now(),
            user_id=key.user_id if key is not None else user_id or "",
            api_key_id=None if key is None else key.id,
            model=options.model or "",
            endpoint=options.endpoint or "",
        )


async def explain_row(settings: Settings, row_id: str) -> Explanation:
    """By what a row was billed, and what held when its call began. Raises OptionError."""
    async with database(settings, _WHY) as pool:
        row = await Plans(pool).row(row_id) if is_uuid(row_id) else None
        if row is None:
            raise OptionError(f"ROW: the ledger has no row with id {row_id!r}")
        store = PlanStore(pool)
        book = PlanBook(await store.every(), (await store.live()).payers)
    found = _explain(book, markup_terms(settings.billing.markup), row.started_at, **row.call)
    terms = None if row.plan_version is None else book.named(row.plan_version)
    derived = None
    if terms is not None and row.cost_usd is not None and row.evidence != "adjustment":
        derived = 0 if row.is_not_billed else bill(int(row.cost_usd * NANO), row.lines, terms, row.model, row.tier)
    return found._replace(row=row, derived_nano=derived)


def values_of(plan: PlanVersion) -> dict[str, Any]:
    """A version as JSON has it."""
    return {
        "plan_version": plan.plan_version,
        "scope": plan.scope,
        "kind": plan.kind,
        "rates": plan.rates,
        "valid_from": rfc3339(plan.valid_from),
        "valid_to": rfc3339(plan.valid_to),
    }


async def _next_version(connections: Connections, options: PlanOptions) -> tuple[PlanVersion, PlanVersion | None]:
    """The version to be made, and the one that it ends, with its end. Raises OptionError."""
    store = Plans(connections)
    rows = await store.rows(options.name)
    last = rows[-1].plan if rows else None
    now = await store.now()
    start = options.start or _next_start(now)
    if start < now + LEAD:
        raise OptionError(f"--from: at least {LEAD.seconds} s ahead, so that every proxy has the plan by then")
    plan = PlanVersion(
        name=options.name,
        version=1 if last is None else last.version + 1,
        kind=options.kind,
        rates=options.rates,
        valid_from=start,
        valid_to=options.until,
        model=options.model,
        endpoint=options.endpoint,
        **await _whose(connections, options),
    )
    try:
        check_plan(plan)
    except PlanError as error:
        raise OptionError(f"plan {options.name}: {error}") from None
    if last is not None and last.scope != plan.scope:
        raise OptionError(
            f"plan {plan.name} is for {last.scope}, in all its versions; another scope needs another name"
        )
    ended = None
    if last is not None and last.valid_to is None:
        # One that has not begun by then never does.
        ended = msgspec.structs.replace(last, valid_to=max(start, last.valid_from))
    for name, version in await store.holding(plan):
        if ended is None or (name, version) != (ended.name, ended.version):
            raise OptionError(f"plan {name}@{version} holds for {plan.scope} at that time: `gateway plans show {name}`")
    return plan, ended


async def _ended(connections: Connections, name: str, at: datetime | None) -> PlanVersion:
    """The version of a plan that has no end, with one. Raises OptionError."""
    store = Plans(connections)
    open_ = [row.plan for row in await store.rows(name) if row.plan.valid_to is None]
    if not open_:
        raise OptionError(
            f"PLAN: there is none called {name!r} without an end; `gateway plans list --all` has all of them"
        )
    now, plan = await store.now(), open_[-1]
    end = at or max(_next_start(now), plan.valid_from)
    if end < now + LEAD:
        raise OptionError(f"--at: at least {LEAD.seconds} s ahead, so that every proxy knows of it by then")
    if end < plan.valid_from:
        raise OptionError(f"--at: {plan.plan_version} starts at {rfc3339(plan.valid_from)}; without --at it never does")
    return msgspec.structs.replace(plan, valid_to=end)


async def _whose(connections: Connections, options: PlanOptions) -> dict[str, str | None]:
    accounts = Accounts(connections)
    customer = None
    if options.customer is not None:
        customer = await Plans(connections).customer(options.customer)
        if customer is None:
            raise OptionError(f"--customer: there is no customer {options.customer!r}, by our id or Stripe's")
    return {
        "user_id": None if options.user is None else (await known_user(accounts, options.user)).id,
        "customer_id": customer,
        "api_key_id": None if options.key is None else (await _known_key(accounts, options.key)).id,
    }


async def _known_key(accounts: Accounts, reference: str) -> KeyRow:
    key = await accounts.key(reference)
    if key is None:
        raise OptionError(f"--key: there is no key {reference!r}; `gateway keys list --all` has all of them")
    return key


async def _preview(
    connections: Connections, settings: Settings, made: PlanVersion | None, ended: PlanVersion | None
) -> tuple[Period, list[UserChange]]:
    """What a change would have done to the usage of the month before this one."""
    changed = made or ended
    assert changed is not None
    before = await PlanStore(connections).live(changed.customer_id)
    others = [plan for plan in before.plans if ended is None or plan.plan_version != ended.plan_version]
    others += [plan for plan in (made, ended) if plan is not None]
    after = PlanBook(others, before.payers)
    at = made.valid_from if made is not None else changed.valid_to or changed.valid_from
    store = Plans(connections)
    month = _last_month(await store.now())
    by_unit = any(terms_of(plan).prices for plan in others)
    used = await store.used(month, by_unit=by_unit)
    return month, changes_of(used, before, after, at, markup_terms(settings.billing.markup))


def _explain(book: PlanBook, setting: Terms, at: datetime, **call: Any) -> Explanation:
    terms = book.resolve(at, **call) or setting
    spans = [span for span in book.spans(**call) if span.until is None or span.since < span.until]
    candidates = [Candidate(each.terms.name, each.since, each.until, each.terms.name == terms.name) for each in spans]
    return Explanation(at, terms, candidates)


def _next_start(now: datetime) -> datetime:
    """The next full minute that is far enough ahead."""
    return (now + START_AHEAD).replace(second=0, microsecond=0) + timedelta(minutes=1)


def _last_month(now: datetime) -> Period:
    return parse_period("last-month", "", now)


def _is_ahead(plan: PlanVersion, now: datetime) -> bool:
    return plan.valid_to is None or (plan.valid_to > now and plan.valid_to > plan.valid_from)
