"""A key as Unkey describes it, as plain values. Nothing of its secret, not even its first characters; no I/O."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from unkey.py import models

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Limit(NamedTuple):
    """A rate limit that Unkey holds."""

    name: str
    limit: int
    duration_ms: int
    auto_apply: bool
    """Whether every verification counts against it."""
    of: str
    """`key`, or `identity` when all keys of the user share it."""


class DescribedKey(NamedTuple):
    """What Unkey holds of a key."""

    key_id: str
    name: str | None
    enabled: bool
    external_id: str | None
    """The identity's; ours is users.id."""
    expires_at: datetime | None
    created_at: datetime
    last_used_at: datetime | None
    """Last verification, to within five minutes."""
    credits: int | None
    """What is left; None is unlimited."""
    refill: str | None
    """How the credits come back: `1000 daily`, `1000 monthly on day 5`."""
    ratelimits: tuple[Limit, ...]
    permissions: tuple[str, ...]
    roles: tuple[str, ...]
    meta: dict[str, Any]
    """What was left with it, ours (`concurrent`) and of others."""


class KeyPage(NamedTuple):
    """Some of the keys of an API."""

    keys: list[DescribedKey]
    cursor: str | None
    """Where the next page begins; None when this is the last one."""


def described(key: models.KeyResponseData) -> DescribedKey:
    """A key of the SDK's as one of ours."""
    shared = key.identity.ratelimits if key.identity else None
    limits = [
        Limit(one.name, one.limit, one.duration, one.auto_apply, of)
        for of, found in (("key", key.ratelimits), ("identity", shared))
        for one in found or ()
    ]
    return DescribedKey(
        key_id=key.key_id,
        name=key.name,
        enabled=key.enabled,
        external_id=key.identity.external_id if key.identity else None,
        expires_at=_instant(key.expires),
        created_at=_EPOCH + timedelta(milliseconds=key.created_at),
        last_used_at=_instant(key.last_used_at),
        credits=key.credits.remaining if key.credits else None,
        refill=_refill(key.credits.refill if key.credits else None),
        ratelimits=tuple(limits),
        permissions=tuple(key.permissions or ()),
        roles=tuple(key.roles or ()),
        meta=dict(key.meta or {}),
    )


def unix_ms(at: datetime | None) -> int | None:
    """Whole Unix milliseconds, all that Unkey can hold of an instant."""
    return None if at is None else (at - _EPOCH) // timedelta(milliseconds=1)


def _instant(unix: int | None) -> datetime | None:
    return None if unix is None else _EPOCH + timedelta(milliseconds=unix)


def _refill(refill: models.KeyCreditsRefill | None) -> str | None:
    if refill is None:
        return None
    day = "" if refill.refill_day is None else f" on day {refill.refill_day}"
    # The SDK's enum is open: an interval that it does not know comes as the plain text.
    return f"{refill.amount} {str.__str__(refill.interval)}{day}"
