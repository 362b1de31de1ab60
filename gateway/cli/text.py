"""Text for a terminal."""

from collections.abc import Callable
from datetime import datetime


def legible(text: str) -> str:
    """Text of others for a terminal: what would steer it stands there as an escape."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def minute(at: datetime | None) -> str:
    """An instant for a table, UTC to the minute."""
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M}"


Say = Callable[[str], None]
