"""Fields of what Daily.co says, read as it says or not at all. Pure.

Numbers may be whole, fractional or text; all instants are Unix seconds (Daily.co's docs).
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from pricing.readers.text import storable

TEXT_CHARS_MAX: Final = 500
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT_MAX: Final = Decimal(4_102_444_800)  # the year 2100


class UnreadableEvent(ValueError):
    """An event that does not say what its type must say; the message names the field."""


def text(payload: dict[str, Any], name: str) -> str:
    """Text that must be there. Raises UnreadableEvent, as all of these do."""
    value = payload.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_CHARS_MAX:
        raise UnreadableEvent(f"{name} must be text of 1 to {TEXT_CHARS_MAX} characters")
    return storable(value)


def optional_text(payload: dict[str, Any], name: str) -> str | None:
    """Text that may be there."""
    value = payload.get(name)
    if not isinstance(value, str) or not value:
        return None
    return storable(value[:TEXT_CHARS_MAX])


def _number(payload: dict[str, Any], name: str) -> Decimal:
    value = payload.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UnreadableEvent(f"{name} must be a number of seconds")
    try:
        number = Decimal(str(value))  # of a float: the digits that Daily wrote
    except InvalidOperation:
        raise UnreadableEvent(f"{name} must be a number of seconds") from None
    if not number.is_finite() or not 0 <= number <= _INSTANT_MAX:
        raise UnreadableEvent(f"{name} is not a plausible number of seconds")
    return number


def instant(payload: dict[str, Any], name: str) -> datetime:
    """An instant that must be there."""
    return _EPOCH + _span(_number(payload, name))


def duration(payload: dict[str, Any], name: str) -> timedelta:
    """How long something took."""
    span = _span(_number(payload, name))
    if span > timedelta(days=3660):
        raise UnreadableEvent(f"{name} is longer than any meeting")
    return span


def _span(seconds: Decimal) -> timedelta:
    return timedelta(microseconds=int(seconds.scaleb(6).to_integral_value()))


def whole_seconds(span: timedelta) -> int:
    """In whole seconds."""
    return round(span.total_seconds())
