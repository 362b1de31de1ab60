"""A webhook's registration as Daily.co's API shows it (Daily.co's docs). Pure.

The list is of the whole domain: other products' entries are in it, older ones lack members, and older pages documented
other types. So an entry is read as far as it can be; one that nobody could name (no `uuid`) is left out.
"""

import dataclasses
from typing import Any, Final

ACTIVE: Final = "ACTIVE"
_ACTIVE_AS_WRITTEN: Final = ("ACTIVE", "ACTVIE")
"""The second is how the vendor's own example spells it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Webhook:
    """A registration at Daily.co; None where it does not say."""

    uuid: str
    url: str = ""
    hmac: str | None = dataclasses.field(default=None, repr=False)
    retry_type: str | None = None
    event_types: tuple[str, ...] = ()
    state: str | None = None
    failed_count: int | None = None
    last_moment_pushed: str | None = None


def webhooks_of(entries: list[Any]) -> list[Webhook]:
    """Those of a list that can be named."""
    return [webhook for entry in entries if (webhook := webhook_of(entry)) is not None]


def webhook_of(entry: object) -> Webhook | None:
    """One entry; None where it has no `uuid`."""
    if not isinstance(entry, dict) or not isinstance(uuid := entry.get("uuid"), str) or not uuid:
        return None
    types, state = entry.get("eventTypes"), _text(entry.get("state"))
    return Webhook(
        uuid,
        _text(entry.get("url")) or "",
        _text(entry.get("hmac")),
        _text(entry.get("retryType")),
        tuple(kind for kind in types if isinstance(kind, str)) if isinstance(types, list) else (),
        ACTIVE if state in _ACTIVE_AS_WRITTEN else state,
        _count(entry.get("failedCount")),
        _text(entry.get("lastMomentPushed")),
    )


def _text(value: object) -> str | None:
    """Text, or a number as text; older pages show numbers where newer ones have text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value)


def _count(value: object) -> int | None:
    """A whole number that may be written `1.0`."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole and isinstance(value, int | float) and not isinstance(value, bool) else None
