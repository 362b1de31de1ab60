"""Asks for a report by what people name: an e-mail address, a key's id, a meeting. Sums nothing itself."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple, get_args

from gateway.accounts.store import Accounts
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.kit.ids import is_uuid
from gateway.reports.meetings import MeetingReport, meeting_report
from gateway.reports.replica import Say, reports_database
from gateway.reports.store import Reports, UsageFilter
from gateway.reports.usage import UsageReport, usage_report
from gateway.stores.postgres import Pool
from gateway.usage.event import Evidence


class UsageOptions(NamedTuple):
    """What usage is asked for, as people name it; None is anything."""

    user: str | None = None
    """E-mail address or UUID."""
    key: str | None = None
    """Our id or Unkey's."""
    meeting: str | None = None
    """UUID."""
    model: str | None = None
    """A model and its dated snapshots; with `!` at the end that very name."""
    endpoint: str | None = None
    customer: str | None = None
    """Our id, Stripe's, or its name."""
    tier: str | None = None
    evidence: str | None = None


ANYTHING: Final = UsageOptions()
EVIDENCES: Final = get_args(Evidence)


async def query_usage(
    settings: Settings,
    *,
    say: Say,
    now: datetime,
    by: Sequence[str] = ("day",),
    since: str | None = None,
    until: str | None = None,
    during: str | None = None,
    wanted: UsageOptions = ANYTHING,
) -> UsageReport:
    """Usage in [since, until), or `during` a period, grouped by `by` (reports/usage.py). `say` is told how old a
    replica's data are.

    Raises OptionError for a wrong option, ConfigError when DATABASE_URL is missing, DependencyDown.
    """
    async with reports_database(settings, "the usage report reads the ledger in PostgreSQL", say) as pool:
        of = await _find_ids(pool, wanted)
        return await usage_report(Reports(pool), by=by, now=now, since=since, until=until, during=during, of=of)


async def query_meetings(
    settings: Settings,
    *,
    say: Say,
    now: datetime,
    since: str | None = None,
    until: str | None = None,
    during: str | None = None,
    user: str | None = None,
) -> MeetingReport:
    """What meetings have cost in that range. Raises the same."""
    async with reports_database(settings, "the report of meetings reads the ledger in PostgreSQL", say) as pool:
        of = await _find_ids(pool, UsageOptions(user=user))
        return await meeting_report(Reports(pool), now=now, since=since, until=until, during=during, user_id=of.user_id)


async def _find_ids(pool: Pool, wanted: UsageOptions) -> UsageFilter:
    """The filter by ids. Raises OptionError naming the option whose user, key or meeting there is not."""
    for name, value in wanted._asdict().items():
        if value is not None and not (value and value.isprintable()):
            raise OptionError(f"--{name}: printable text on one line")
    accounts = Accounts(pool)
    user = None if wanted.user is None else await accounts.find(wanted.user)
    if wanted.user is not None and user is None:
        raise OptionError(f"--user: there is no user {wanted.user}; `gateway users list --all` has all of them")
    key = None if wanted.key is None else await accounts.key(wanted.key)
    if wanted.key is not None and key is None:
        # The text is not repeated: it may be a secret that was taken for an id.
        raise OptionError("--key: no key with this id is linked here; `gateway keys list --all` has all of them")
    meeting = wanted.meeting
    if meeting is not None and (not is_uuid(meeting) or await Reports(pool).room_of(meeting) is None):
        raise OptionError(f"--meeting: there is no meeting with the id {meeting} (a UUID, as X-Meeting-Id takes it)")
    customer = None if wanted.customer is None else await Reports(pool).customers_named(wanted.customer)
    if customer is not None and len(customer) != 1:
        found = "several are called" if customer else "there is none called"
        raise OptionError(f"--customer: {found} {wanted.customer!r}; give its id")
    if wanted.evidence is not None and wanted.evidence not in EVIDENCES:
        raise OptionError(f"--evidence: {wanted.evidence!r} is not one of {', '.join(EVIDENCES)}")
    model = wanted.model
    return UsageFilter(
        user_id=None if user is None else user.id,
        key_id=None if key is None else key.id,
        meeting_id=None if meeting is None else meeting.lower(),
        customer_id=None if customer is None else customer[0],
        model=None if model is None else model.removesuffix("!"),
        snapshots=model is None or not model.endswith("!"),
        endpoint=wanted.endpoint,
        tier=wanted.tier,
        evidence=wanted.evidence,
    )
