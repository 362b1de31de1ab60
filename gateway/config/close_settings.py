"""Settings of the close of a month."""

import base64
import binascii
from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, Field, SecretStr

SIGNING_KEY_BYTES: Final = 32


def signing_key_of(text: str) -> bytes:
    """The private Ed25519 key that close.signing_key spells. Raises ValueError saying what would be right."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != SIGNING_KEY_BYTES:
        raise ValueError(f"it must be the base64 of {SIGNING_KEY_BYTES} bytes (`openssl rand -base64 32` makes one)")
    return key


def _signing_key(value: SecretStr) -> SecretStr:
    signing_key_of(value.get_secret_value())
    return value


class CloseSettings(BaseModel, extra="forbid", frozen=True):
    """What a month needs to be closed, and how its pack is signed (docs/close.md)."""

    estimated_max_percent: Decimal = Field(Decimal("1"), ge=0, le=100)
    """Share of a month's cost, in percent, that may rest on estimates nobody has corrected."""
    signing_key: Annotated[SecretStr, AfterValidator(_signing_key)] | None = None
    """Private Ed25519 key that signs packs: 32 bytes, base64. Without it packs are not signed."""
