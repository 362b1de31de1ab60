"""Plans in PostgreSQL, as those who value calls read them; and who keeps a process's knowledge of them fresh.

A plan starts and ends at least a minute after it was written, and a change is looked for every 15 seconds: so a process
that reaches PostgreSQL knows every plan before it holds. One that does not goes on with what it knows; its rows say by
which plan they were billed.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

from gateway.stores.postgres import Connections, Table
from gateway.usage.plans import KnownPlans, Payer, PlanBook, PlanError, PlanVersion, Terms, setting_terms, terms_of

_log: Final = structlog.get_logger("gateway.plans")
EVERY_S: Final = 15.0
"""Seconds between two looks for a change."""
# Rises with every plan that is made or ended, and with every change of who pays where that matters to plans.
_NUMBER: Final = "select number from public.plan_changes"
_COLUMNS: Final = """
name, version, kind, rates::text as rates, valid_from, valid_to, user_id::text as user_id,
customer_id::text as customer_id, api_key_id::text as api_key_id, model, endpoint
"""
# What holds, will hold, or has held in the last 40 days: no call that is still to be valued began before that. (A call
# of a journal that is adopted later is billed as if that plan had not been, and the audit lists its row.)
_LIVE: Final = "(valid_to is null or (valid_to > valid_from and valid_to > now() - interval '960 hours'))"
_PLANS: Final = f"select {_COLUMNS} from public.plans where {_LIVE} order by id"  # noqa: S608 - constants only
_EVERY: Final = f"select {_COLUMNS} from public.plans order by id"  # noqa: S608 - as above
_ONE: Final = f"select {_COLUMNS} from public.plans where name = $1 and version = $2"  # noqa: S608 - as above
# Links of users to customers that have plans. A link counts from a minute after it was made, and ends a minute late, so
# that every process knows it; and it never changes the plan of calls that were billed before it was made.
PAYERS: Final = """
select c.user_id::text as user_id, c.customer_id::text as customer_id,
  greatest(c.valid_from, c.made_at + interval '60 seconds') as since,
  c.valid_to + interval '60 seconds' as until
from public.user_customers c
where c.customer_id in (select p.customer_id from public.plans p where p.customer_id is not null)
  or c.customer_id = $1::uuid
"""


class PlanStore(Table):
    """All of it over one pool. Every method raises DependencyDown("postgres")."""

    async def number(self) -> int:
        """Of the last change."""
        return int((await self._look_up(_NUMBER))[0][0])

    async def live(self, customer_id: str | None = None) -> PlanBook:
        """What calls of now, and those not valued yet, are billed by; and the users of this customer too."""
        plans = [plan for row in await self._look_up(_PLANS) if _reads(plan := plan_of(row))]
        if customer_id is None and not any(plan.customer_id is not None for plan in plans):
            return PlanBook(plans)
        return PlanBook(plans, [Payer(*row.values()) for row in await self._look_up(PAYERS, customer_id)])

    async def every(self) -> list[PlanVersion]:
        """All versions there have ever been, in the order in which they were made."""
        return [plan_of(row) for row in await self._rows(_EVERY)]

    async def terms(self, plan_version: str | None) -> Terms | None:
        """What a row with this plan_version was billed by; None where it does not say."""
        name, _, version = (plan_version or "").partition("@")
        if not version.isdecimal():
            return setting_terms(plan_version or "")
        rows = await self._rows(_ONE, name, int(version))
        return terms_of(plan_of(rows[0])) if rows else None


def plan_of(row: Any) -> PlanVersion:
    """A row of `plans`."""
    return PlanVersion(**{**dict(row), "rates": msgspec.json.decode(row["rates"])})


def _reads(plan: PlanVersion) -> bool:
    """Whether this version of the gateway can read it. The table takes only what it can, so a later version made it."""
    try:
        terms_of(plan)
    except PlanError as error:
        _log.error("plan cannot be read, calls are billed without it", plan=plan.plan_version, error=str(error))
        return False
    return True


class FollowPlans:
    """Keeps what one process knows of plans fresh."""

    def __init__(self, pool: Connections, *, monotonic: Callable[[], float]) -> None:
        self.known: Final = KnownPlans()
        self._store: Final = PlanStore(pool)
        self._monotonic: Final = monotonic
        self._number: int | None = None
        """Of the change that is known; None until the first look."""
        self._looked_s = monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since the last look that succeeded, or since the start."""
        return self._monotonic() - self._looked_s

    @property
    def failure(self) -> str | None:
        """Why no key can be let in; None from the first look on that succeeds."""
        if self._number is not None:
            return None
        return "PostgreSQL has not answered since the start: whose a key is, and what a call costs, is not known yet"

    async def step_once(self) -> None:
        """Looks for a change. Raises DependencyDown, after two seconds at the latest."""
        looked_s = self._monotonic()
        number = await self._store.number()
        if number != self._number:  # read first: what changes meanwhile is read once more
            self.known.book = await self._store.live()
            self._number = number
        self._looked_s = looked_s

    async def look_first(self) -> None:
        """Before the first call is let in: plans are known, however long PostgreSQL was away. Raises DependencyDown."""
        if self._number is None:
            await self.step_once()

    async def refresh(self) -> None:
        """Knows what holds now. Raises DependencyDown."""
        if self._number is None or self.age_s >= EVERY_S:
            await self.step_once()
