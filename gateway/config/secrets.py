"""Secrets in settings, decoded."""

import base64
import binascii
from typing import Final

SECRET_BYTES_MIN: Final = 16


def secret_of(text: str) -> bytes:
    """The key that DAILY_WEBHOOK_SECRET spells in base64. Raises ValueError saying what would be right."""
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it must be base64, as Daily.co's `hmac` is") from None
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"it must be the base64 of at least {SECRET_BYTES_MIN} bytes")
    return secret
