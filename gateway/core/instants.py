"""Instants as people type them: a date or an RFC 3339 time, and how long from now. Pure; UTC comes out."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.core.errors import OptionError

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_SPAN: Final = re.compile(r"(\d{1,5})([mhdw])", re.ASCII)
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FORMS: Final = "date (2026-11-22) nor a time with its zone (2026-11-22T10:00:00Z)"


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
