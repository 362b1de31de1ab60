"""Instants and periods as people type them, and instants as JSON has them. Pure: the clock is an argument; all UTC."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, overload

from gateway.kit.errors import OptionError

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_MONTH: Final = re.compile(r"\d{4}-\d{2}", re.ASCII)
_SPAN: Final = re.compile(r"(\d{1,5})([mhdw])", re.ASCII)
_SECONDS: Final = re.compile(r"(\d{1,7})s", re.ASCII)
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FORMS: Final = "date (2026-11-22) nor a time with its zone (2026-11-22T10:00:00Z)"
_NAMED: Final = ("today", "yesterday", "this-month", "last-month")
_NAMED_FORMS: Final = f"nor a month (2026-11), nor one of {', '.join(_NAMED)}"


class Period(NamedTuple):
    """A half-open span of time."""

    since: datetime
    until: datetime
    """The first instant that is no longer in it."""


def parse_instant(text: str, option: str) -> datetime:
    """The instant of a date (its UTC midnight) or an RFC 3339 time, in UTC.

    Raises OptionError naming `option` and what would be right.
    """
    try:
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise OptionError(f"{option}: {text!r} does not exist: {error}") from None
    raise OptionError(f"{option}: {text!r} is neither a {_FORMS}")


def parse_expiry(text: str, option: str, now: datetime) -> datetime:
    """The instant of `30d`, `12h`, `90m`, `2w` from `now`, of a date or of an RFC 3339 time; must be after `now`.

    Raises OptionError naming `option` and what would be right.
    """
    span = _SPAN.fullmatch(text)
    try:
        at = now + timedelta(**{_UNITS[span[2]]: int(span[1])}) if span else parse_instant(text, option)
    except OptionError as error:
        raise OptionError(f"{error}, nor a span from now (30d, 12h, 90m, 2w)") from None
    if at <= now:
        raise OptionError(f"{option}: {text!r} is not in the future")
    return at


def parse_span(text: str, option: str, most: timedelta) -> timedelta:
    """The length of `0s`, `90m`, `12h`, `7d`, `2w`, at most `most`. Raises OptionError naming `option`."""
    if seconds := _SECONDS.fullmatch(text):
        length = timedelta(seconds=int(seconds[1]))
    elif span := _SPAN.fullmatch(text):
        length = timedelta(**{_UNITS[span[2]]: int(span[1])})
    else:
        raise OptionError(f"{option}: {text!r} is not a time span (0s, 90m, 12h, 7d, 2w)")
    if length > most:
        raise OptionError(f"{option}: {text!r} is more than {most.days} days")
    return length


def parse_period(text: str, option: str, now: datetime) -> Period:
    """The UTC day or month that `2026-11-22`, `2026-11`, `today`, `yesterday`, `this-month` or `last-month` is.

    Raises OptionError naming `option` and what would be right.
    """
    if text in _NAMED or _MONTH.fullmatch(text):
        return _named_period(text, option, now.astimezone(UTC))
    if not _DATE.fullmatch(text):
        raise OptionError(f"{option}: {text!r} is neither a date (2026-11-22) {_NAMED_FORMS}")
    return _period(parse_instant(text, option), option, text, days=1)


def parse_bound(text: str, option: str, now: datetime) -> datetime:
    """An end of a range: an instant as `parse_instant` takes it, or the first one of a period of `parse_period`.

    Raises OptionError naming `option` and what would be right.
    """
    if text in _NAMED or _MONTH.fullmatch(text):
        return parse_period(text, option, now).since
    if _DATE.fullmatch(text) or _TIME.fullmatch(text):
        return parse_instant(text, option)
    raise OptionError(f"{option}: {text!r} is neither a {_FORMS}, {_NAMED_FORMS}")


@overload
def rfc3339(at: datetime) -> str: ...
@overload
def rfc3339(at: None) -> None: ...
@overload
def rfc3339(at: datetime | None) -> str | None: ...


def rfc3339(at: datetime | None) -> str | None:
    """An instant in UTC as JSON and CSV have it (`2026-11-22T10:00:00Z`); None stays None."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _named_period(text: str, option: str, now: datetime) -> Period:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    match text:
        case "today":
            return _period(midnight, option, text, days=1)
        case "yesterday":
            return Period(midnight - timedelta(days=1), midnight)
        case "this-month":
            return _period(midnight.replace(day=1), option, text)
        case "last-month":
            first = midnight.replace(day=1)
            return Period((first - timedelta(days=1)).replace(day=1), first)
        case _:
            return _period(parse_instant(f"{text}-01", option), option, text)


def _period(since: datetime, option: str, text: str, *, days: int | None = None) -> Period:
    """From `since` on, so many days or, without them, the month."""
    try:
        if days is not None:
            return Period(since, since + timedelta(days=days))
        return Period(since, (since + timedelta(days=31)).replace(day=1))
    except OverflowError:
        raise OptionError(f"{option}: {text!r} does not end before the calendar does") from None
