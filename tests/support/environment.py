"""The environment of the processes that tests start."""

import os
from typing import Final

_LEFT_OUT: Final = (
    *("OPENAI_", "UNKEY_", "STRIPE_", "DAILY_", "ROOMS_", "GATEWAY_", "DATABASE_URL", "REDIS_URL", "LIMITS_REDIS_URL"),
    *("COLUMNS", "LINES"),
)
"""How names begin that would configure a gateway, or that say how large the terminal of whoever runs the tests is."""


def clean_environment() -> dict[str, str]:
    """Ours, without anything that would change what a command does or prints."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
