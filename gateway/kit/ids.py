"""Ids. One UUIDv7 per call travels through header, journal, stream and ledger. No I/O, no clock of its own."""

from hashlib import sha256
from uuid import UUID


def uuid7(unix_ms: int, random80: int) -> str:
    """The UUIDv7 (RFC 9562 §5.7) for `unix_ms` (milliseconds) and 80 random bits (the top 6 are dropped).

    Both are arguments so that a test can fix them; callers pass a clock and `secrets.randbits(80)`.
    """
    if not 0 <= unix_ms < 1 << 48:
        raise ValueError(f"unix_ms must fit 48 bits, got {unix_ms}")
    low = random80 & ((1 << 74) - 1)
    value = (unix_ms << 80) | (0x7 << 76) | ((low >> 62) << 64) | (0b10 << 62) | (low & ((1 << 62) - 1))
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def unix_ms_of(event_id: str) -> int:
    """The millisecond instant inside a UUIDv7, or of a child of one."""
    return UUID(event_id).int >> 80


def child_id(parent: str, key: str) -> str:
    """The UUIDv8 (RFC 9562 §5.8) of a part of a call, or of what corrects it: the 48 time bits of the parent, so that
    it sorts where its call does, then 74 bits of a hash of parent and key. The same two give the same id, always.

    Rows made by older versions have a uuid5 instead. So whether a row has been corrected is asked by what the
    corrections name (`adjusts`), never by an id that is made again here.
    """
    whole = UUID(parent)
    hashed = int.from_bytes(sha256(whole.bytes + key.encode()).digest()[:10]) >> 6
    low = (hashed >> 62) << 64 | 0b10 << 62 | hashed & ((1 << 62) - 1)
    return str(UUID(int=whole.int >> 80 << 80 | 0x8 << 76 | low))


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical 36-character form."""
    if len(text) != 36:
        return False
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
