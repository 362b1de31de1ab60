"""The clock, for the processes and commands that hand it down."""

import time
from datetime import UTC, datetime


def unix_ms() -> int:
    """Now, milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def now() -> datetime:
    """Now, UTC."""
    return datetime.now(UTC)
