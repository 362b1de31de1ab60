"""Ids. One UUIDv7 per call travels through header, journal, stream and ledger. No I/O, no clock of its own."""

from uuid import UUID, uuid5


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
    """The millisecond instant inside a UUIDv7."""
    return UUID(event_id).int >> 80


def child_id(parent: str, key: str) -> str:
    """The id of one billable part of a call (a batch line, a realtime response): uuid5 of parent and key."""
    return str(uuid5(UUID(parent), key))


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID in its canonical 36-character form."""
    if len(text) != 36:
        return False
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
