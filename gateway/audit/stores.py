"""Opens the stores that an audit reads, and runs it over them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Final, NamedTuple

import pricing
import pricing.data
from gateway.audit.budgets import Counted, compare
from gateway.audit.delivery import NO_KEY, NOT_ASKED
from gateway.audit.kept import build_mark_signer, keep_mark, read_kept
from gateway.audit.reads.snapshot import Offenders, snapshot
from gateway.audit.result import AuditReport
from gateway.audit.run import GRACE_S, Policy, audit
from gateway.audit.span import audited_span
from gateway.billing.opening import open_billing
from gateway.billing.stripe import Billing
from gateway.config.settings import Settings
from gateway.limits.opening import open_limits
from gateway.limits.recount import QUIET_PASSES
from gateway.limits.spending import Spending
from gateway.stores.one_connection import LONG_STATEMENT_S, database

_WHY: Final = "the audit reads the ledger in PostgreSQL"


class AuditOptions(NamedTuple):
    """What is to be audited, as people name it."""

    since: str | None = None
    until: str | None = None
    everything: bool = False
    grace_s: float = GRACE_S
    """Seconds that a settled call has to arrive in."""
    stripe: bool = False
    """Whether Stripe is asked too."""
    is_whole: bool = False
    """Whether sums of all time are compared from nothing, as with `everything`, although the rows are of a range."""


async def audit_stores(settings: Settings, *, now: datetime, wanted: AuditOptions) -> AuditReport:
    """Every invariant, over what PostgreSQL, Redis, this host's journal and Stripe say.

    Raises OptionError for a wrong option, ConfigError when DATABASE_URL is missing, DependencyDown.
    """
    span = audited_span(wanted.since, wanted.until, now, everything=wanted.everything)
    policy = Policy(
        open_max_s=settings.journal.open_max_s,
        billing_grace_s=settings.billing.grace_s,
        grace_s=wanted.grace_s,
        has_stripe_key=settings.stripe_secret_key is not None,
    )
    budgets = await _budgets(settings)
    async with (
        database(settings, _WHY, statement_s=LONG_STATEMENT_S) as pool,
        _stripe(settings, wanted) as stripe,
        snapshot(pool) as view,
    ):
        kept = await read_kept(view, build_mark_signer(settings), is_whole=wanted.is_whole or wanted.everything)
        return await audit(
            view,
            span,
            now,
            book=pricing.parse(pricing.data.read_texts()),
            policy=policy,
            folder=settings.gateway_data_dir / "journal",
            budgets=budgets,
            stripe=stripe,
            why_no_stripe=NO_KEY if wanted.stripe else NOT_ASKED,
            kept=kept,
        )


async def keep(settings: Settings, report: AuditReport, by: str) -> bool:
    """Keeps the mark of an audit that has compared all sums and found them right; whether there was one to keep.

    Raises DependencyDown, also where the login may only read.
    """
    signer = build_mark_signer(settings)
    if signer is None or report.mark is None:
        return False
    async with database(settings, _WHY) as pool:
        await keep_mark(pool, signer, report.mark, by)
    return True


async def _budgets(settings: Settings) -> Counted:
    """Counters of budgets against the ledger, where there is a Redis."""
    if settings.redis_url is None and settings.limits_redis_url is None:
        return Counted(0, Offenders(), "counters of budgets not compared: REDIS_URL is not set")
    async with database(settings, _WHY, statement_s=LONG_STATEMENT_S) as pool, AsyncExitStack() as stack:
        limits = open_limits(stack, settings)
        recount_s = settings.limits.recount_s * (QUIET_PASSES + 1)
        return await compare(limits, Spending(pool), recount_s=recount_s, sleep=asyncio.sleep)


@asynccontextmanager
async def _stripe(settings: Settings, wanted: AuditOptions) -> AsyncIterator[Billing | None]:
    """Stripe, where it is wanted and there is a key."""
    if not wanted.stripe or settings.stripe_secret_key is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        yield await open_billing(stack, settings, settings.stripe_secret_key.get_secret_value())
