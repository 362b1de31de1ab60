"""How Stripe names, in a sample of its error reports, the event that it did not count. Pure."""

from typing import Any


def sample_identifier(identifier: Any, idempotency_key: Any) -> str | None:
    """Newer samples of Stripe's call it `identifier`, older ones `idempotency_key`; we send one value as both."""
    named = identifier or idempotency_key
    return named if isinstance(named, str) else None
