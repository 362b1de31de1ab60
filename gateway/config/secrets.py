"""Secrets in settings, decoded. A message never quotes one."""

import base64
import binascii
import re
from typing import Final

SECRET_BYTES_MIN: Final = 16
_STRIPES: Final = re.compile(r"whsec_[\x21-\x2b\x2d-\x7e]{10,}")


def secret_of(text: str) -> bytes:
    """The key that DAILY_WEBHOOK_SECRET spells in base64. Raises ValueError saying what would be right."""
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it must be base64, as Daily.co's `hmac` is") from None
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"it must be the base64 of at least {SECRET_BYTES_MIN} bytes")
    return secret


def stripe_secrets_of(text: str) -> tuple[str, ...]:
    """The secrets that STRIPE_WEBHOOK_SECRET lists: each endpoint at Stripe has its own, and two while it is rolled.
    Raises ValueError saying what would be right.
    """
    secrets = tuple(each.strip() for each in text.split(",") if each.strip())
    if not secrets or not all(_STRIPES.fullmatch(each) for each in secrets):
        raise ValueError("it must be one or more signing secrets of Stripe's, whsec_…, with commas between them")
    return secrets
