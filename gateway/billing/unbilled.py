"""What users owe of times in which nobody paid for them: by user, and how old it is. Reads only.

It stays so until somebody decides (accounts/link.py), also where a customer pays for the user today.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from gateway.config.settings import Settings
from gateway.kit.instants import rfc3339
from gateway.stores.one_connection import database
from gateway.stores.postgres import Connections, Table
from pricing import nano_text

STRIPE_TAKES: Final = timedelta(days=35)
"""Stripe refuses usage with an older timestamp (Stripe's docs on meter events)."""
_WHY: Final = "what has accrued is in PostgreSQL"
# $1: the beginning of this UTC month, in which the invoice of a new customer can still have it at its own time; $2: the
# oldest timestamp that Stripe takes.
_UNBILLED: Final = """
select u.id::text as user_id, u.email, u.stripe_customer_id as customer, min(w.window_start) as first_at,
  max(w.window_start + w.window_seconds * interval '1 second') as last_at, count(*) as windows,
  sum(w.nano)::bigint as nano,
  coalesce(sum(w.nano) filter (where w.window_start >= $1), 0)::bigint as in_period_nano,
  coalesce(sum(w.nano) filter (where w.window_start < $1 and w.window_start >= $2), 0)::bigint as in_35_days_nano,
  coalesce(sum(w.nano) filter (where w.window_start < $1 and w.window_start < $2), 0)::bigint as older_nano
from (
  select *, billed_nano - credit_nano - frozen_nano - settled_nano as nano
  from public.billing_windows where open and user_id is not null
) w
join public.users u on u.id = w.user_id
group by u.id, u.email order by nano desc, u.email
"""


class UnbilledUser(NamedTuple):
    """A user with amounts that nobody pays; money in nano-USD."""

    user_id: str
    email: str
    customer: str | None
    """Stripe's id of the one who pays today."""
    first_at: datetime
    """When the first window with an amount begins."""
    last_at: datetime
    """When the last one ends."""
    windows: int
    nano: int
    in_period_nano: int
    """Of this UTC month: on time for the invoice of a customer that is linked now."""
    in_35_days_nano: int
    """Of earlier months, and not too old for a timestamp of its own at Stripe."""
    older_nano: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; money as a string with nine decimals."""
        money = {
            f"{name.removesuffix('nano')}usd" if name != "nano" else "usd": nano_text(getattr(self, name))
            for name in ("nano", "in_period_nano", "in_35_days_nano", "older_nano")
        }
        return {
            "user_id": self.user_id,
            "email": self.email,
            "stripe_customer_id": self.customer,
            "first_usage": rfc3339(self.first_at),
            "last_usage": rfc3339(self.last_at),
            "windows": self.windows,
            **money,
        }


class Unbilled(Table):
    """Over one pool."""

    async def users(self, now: datetime) -> list[UnbilledUser]:
        """The one who owes most first. Raises DependencyDown("postgres")."""
        month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return [UnbilledUser(*row.values()) for row in await self._rows(_UNBILLED, month, now - STRIPE_TAKES)]


async def list_unbilled(settings: Settings, now: datetime) -> list[UnbilledUser]:
    """The same for a command. Raises ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        return await read_unbilled(pool, now)


async def read_unbilled(connections: Connections, now: datetime) -> list[UnbilledUser]:
    """Users with amounts that nobody pays yet. Raises DependencyDown."""
    return await Unbilled(connections).users(now)
