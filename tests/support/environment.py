"""The environment of the processes that tests start."""

import os
from typing import Final

_VENDOR_PREFIXES: Final = ("OPENAI_", "UNKEY_", "STRIPE_", "DAILY_", "ROOMS_", "GATEWAY_", "DATABASE_URL", "REDIS_URL")


def clean_environment() -> dict[str, str]:
    """Ours, without anything that would configure a gateway."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_VENDOR_PREFIXES)}
