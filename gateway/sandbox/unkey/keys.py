"""What the Unkey stand-in knows of keys and identities, and how it judges a key (Unkey's docs).

Keeps hashes of keys, never keys. Instants are Unix milliseconds, as on Unkey's wire.
"""

import calendar
import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

INT64_MAX: Final = 2**63 - 1
BRACKETS_MAX: Final = 50
_TOKEN: Final = re.compile(r"\s*(\(|\)|[A-Za-z0-9_.:\-*]+)")


class NamedLimit(msgspec.Struct, rename="camel", omit_defaults=True):
    """A named rate limit; `duration` in milliseconds."""

    name: str
    limit: int
    duration: int
    id: str = ""
    auto_apply: bool = False


class Refill(msgspec.Struct, rename="camel", omit_defaults=True):
    """The balance becomes `amount` at midnight UTC, each day or on one day of the month."""

    interval: Literal["daily", "monthly"]
    amount: Annotated[int, Meta(ge=1, le=INT64_MAX)]
    refill_day: Annotated[int, Meta(ge=1, le=31)] | None = None
    """In a month that is shorter, its last day."""

    def due(self, today: date) -> date:
        """The latest day, `today` included, on which the balance was to be refilled."""
        if self.interval == "daily":
            return today
        this = self._in_month(today)
        return this if this <= today else self._in_month(today.replace(day=1) - timedelta(days=1))

    def _in_month(self, day: date) -> date:
        return day.replace(day=min(self.refill_day or 1, calendar.monthrange(day.year, day.month)[1]))


class Key(msgspec.Struct):
    """One key."""

    key_id: str
    api_id: str
    digest: str
    """SHA-256 of the key, hex."""
    start: str
    created_at: int
    name: str | None = None
    enabled: bool = True
    expires: int | None = None
    meta: dict[str, Any] | None = None
    external_id: str | None = None
    remaining: int | None = None
    """Credits; None is unlimited."""
    refill: Refill | None = None
    refilled_at: int = 0
    permissions: list[str] = []
    roles: list[str] = []
    ratelimits: list[NamedLimit] = []
    updated_at: int | None = None
    last_used_at: int | None = None


class StoredIdentity(msgspec.Struct, rename="camel", omit_defaults=True):
    """Whom keys belong to."""

    id: str
    external_id: str
    meta: dict[str, Any] | None = None
    ratelimits: list[NamedLimit] = []


class UnkeyState(msgspec.Struct):
    """Everything that outlives a restart."""

    keys: dict[str, Key] = {}
    identities: dict[str, StoredIdentity] = {}
    """By external id."""
    roles: dict[str, list[str]] = {}
    """The permissions of each role, by its name."""
    permissions: set[str] = set()
    """Names that the workspace has, whoever is given them."""


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """A rate limit that one verification names, on the key, on its identity, or of its own."""

    name: Annotated[str, Meta(min_length=3, max_length=255)]
    cost: Annotated[int, Meta(ge=0, le=INT64_MAX)] = 1
    limit: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    duration: Annotated[int, Meta(ge=1, le=INT64_MAX)] | None = None


class Run(NamedTuple):
    """A limit that one verification counts against."""

    limit: NamedLimit
    cost: int
    owner: str
    """Whose uses are counted together: a key's id, or an identity's."""


class UnknownLimit(Exception):
    """A verification named a limit that neither the key nor its identity has."""


class RateWindows:
    """Sliding windows of rate limits, as Unkey's server source has them (internal/services/ratelimit): what the fixed
    window before this one counted weighs as much as is left of this one. `reset` is the end of the fixed window, at
    which that weight is still whole."""

    def __init__(self) -> None:
        self._used: Final[dict[tuple[str, str, int, int], int]] = {}

    def check(self, limits: list[Run], now_ms: int) -> tuple[bool, list[dict[str, Any]]]:
        """(whether all limits allow their cost, what Unkey says of each). Spends all of them or none."""
        seen = []
        for limit, cost, owner in limits:
            window, elapsed_ms = divmod(now_ms, limit.duration)
            slot = (owner, limit.name, limit.duration, window)
            before = self._used.get((*slot[:3], window - 1), 0)
            used = self._used.get(slot, 0) + before * (limit.duration - elapsed_ms) // limit.duration
            seen.append((limit, slot, used + cost, cost, (window + 1) * limit.duration))
        allowed = all(wanted <= limit.limit for limit, _, wanted, _, _ in seen)
        said = []
        for limit, slot, wanted, cost, reset in seen:
            exceeded = wanted > limit.limit
            if allowed:
                self._used[slot] = self._used.get(slot, 0) + cost
            said.append(
                {
                    "exceeded": exceeded,
                    "id": limit.id or f"rl_{limit.name}",
                    "name": limit.name,
                    "limit": limit.limit,
                    "duration": limit.duration,
                    "reset": reset,
                    # What was not spent because of another limit is left.
                    "remaining": max(0, limit.limit - wanted + (0 if allowed or exceeded else cost)),
                    "autoApply": limit.auto_apply,
                }
            )
        if len(self._used) > 100_000:
            self._used.clear()
        return allowed, said


def limits_for(key: Key, identity: StoredIdentity | None, asked: list[Asked]) -> list[Run]:
    """The limits that one verification runs. Those of key and identity are merged by name, and the key's wins; an
    identity's counts over all its keys (Unkey's server source). Raises UnknownLimit.
    """
    known = {limit.name: (limit, identity.id) for limit in identity.ratelimits} if identity else {}
    known |= {limit.name: (limit, key.key_id) for limit in key.ratelimits}
    wanted = {name: Run(limit, 1, owner) for name, (limit, owner) in known.items() if limit.auto_apply}
    for ask in asked:
        if ask.limit is not None and ask.duration is not None:
            wanted[ask.name] = Run(NamedLimit(ask.name, ask.limit, ask.duration), ask.cost, key.key_id)
        elif ask.name in known:
            limit, owner = known[ask.name]
            wanted[ask.name] = Run(limit, ask.cost, owner)
        else:
            raise UnknownLimit(ask.name)
    return list(wanted.values())


def refill(key: Key, now_ms: int) -> None:
    """Replaces the balance when a refill has fallen due since the last one."""
    if key.refill is None or key.remaining is None:
        return
    today, last = (datetime.fromtimestamp(ms // 1000, UTC).date() for ms in (now_ms, key.refilled_at))
    if last < key.refill.due(today):
        key.remaining = key.refill.amount
        key.refilled_at = now_ms


def is_permitted(query: str, granted: list[str]) -> bool:
    """Whether the permissions satisfy a query of names, AND, OR and brackets. Raises ValueError when it is none."""
    tokens = _TOKEN.findall(query)
    if "".join(tokens) != re.sub(r"\s+", "", query) or tokens.count("(") > BRACKETS_MAX:
        raise ValueError(f"no query of permissions: {query}")

    def either() -> bool:
        found = both()
        while tokens and tokens[0].upper() == "OR":
            tokens.pop(0)
            found = both() or found
        return found

    def both() -> bool:
        found = one()
        while tokens and tokens[0].upper() == "AND":
            tokens.pop(0)
            found = one() and found
        return found

    def one() -> bool:
        if not tokens or tokens[0] == ")" or tokens[0].upper() in ("AND", "OR"):
            raise ValueError(f"no query of permissions: {query}")
        name = tokens.pop(0)
        if name != "(":
            return name in granted
        found = either()
        if not tokens or tokens.pop(0) != ")":
            raise ValueError(f"no query of permissions: {query}")
        return found

    satisfied = either()
    if tokens:
        raise ValueError(f"no query of permissions: {query}")
    return satisfied
