"""What an event of Stripe's says about itself (stripe-python 16.1: `Event`, `V2Event`). Pure.

A snapshot (`event`) carries an object as it was, of whatever API version the endpoint has; a thin one (`v2.core.event`)
only names it. Neither is believed for what the object is now: that is asked of Stripe.
"""

import hashlib
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

UNREADABLE: Final = "unreadable"
"""Type of what is signed and no event."""
_NAME_CHARS_MAX: Final = 255


class Event(NamedTuple):
    """One event."""

    id: str
    type: str
    occurred_at: datetime | None
    is_thin: bool
    is_live: bool
    account: str | None
    """A connected account that it is of; None: our own."""
    object_id: str | None
    """Of the object that it is about."""
    object_kind: str | None
    """What that is, as `invoice`."""
    invoice: str | None
    """The invoice that the object belongs to."""
    credit_grant: str | None
    """The grant that the object belongs to."""


def read_event(body: bytes) -> Event:
    """The event; of type UNREADABLE, with a digest as its id, when it is none. Raises nothing."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        document = None
    found = document if isinstance(document, dict) else {}
    name, kind, of = _text(found.get("id")), _text(found.get("type")), found.get("object")
    if name is None or kind is None or of not in ("event", "v2.core.event"):
        digest = f"{UNREADABLE}:{hashlib.sha256(body).hexdigest()}"
        return Event(digest, UNREADABLE, None, False, False, None, None, None, None, None)
    is_thin = of == "v2.core.event"
    about = found.get("related_object") if is_thin else _member(found.get("data"), "object")
    account = found.get("context") if is_thin else found.get("account")
    return Event(
        name,
        kind,
        _instant(found.get("created")),
        is_thin,
        found.get("livemode") is True,
        _text(account),
        _text(_member(about, "id")),
        _text(_member(about, "type" if is_thin else "object")),
        _text(_member(about, "invoice")),
        _text(_member(about, "credit_grant")),
    )


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _text(value: Any) -> str | None:
    """A name that can be kept: PostgreSQL's text has no NUL and no half of a surrogate pair."""
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_CHARS_MAX or not value.isprintable():
        return None
    return value


def _instant(value: Any) -> datetime | None:
    """Unix seconds, as snapshots have them, or RFC 3339, as thin events do."""
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value) if value.isascii() else None
        except ValueError:
            return None
        return None if at is None or at.tzinfo is None else at
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 253_402_300_800:
        return datetime.fromtimestamp(value, UTC)
    return None
