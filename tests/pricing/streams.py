"""Golden event streams and ways to feed them to a StreamMeter. Streams follow OpenAI's documented shapes."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pricing.stream import StreamMeter

_FOLDER = Path(__file__).parents[1] / "golden" / "streams"
CHAT = ("chat", "chat_n2", "chat_tools", "chat_obfuscation", "chat_refusal", "chat_tricky", "chat_comments")
CHAT_FILES = (*(f"{name}.{kind}.sse" for name in CHAT for kind in ("usage", "plain")), "chat_error.sse")
RESPONSES_FILES = (
    "responses.sse",
    "responses_tools.sse",
    "responses_tricky.sse",
    "responses_incomplete.sse",
    "responses_failed.sse",
    "responses_failed_unused.sse",
    "responses_error.sse",
    "responses_error_then_failed.sse",
)


def stream(name: str) -> bytes:
    """A golden stream."""
    return (_FOLDER / name).read_bytes()


def crlf(data: bytes) -> bytes:
    """The same stream with the other line end that the standard knows."""
    return data.replace(b"\n", b"\r\n")


def meter_for(name: str, *, withhold: bool = False) -> StreamMeter:
    """A meter of the stream's shape."""
    return StreamMeter("chat" if name.startswith("chat") else "responses", withhold=withhold)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """`data` in chunks of `size` bytes."""
    return (data[at : at + size] for at in range(0, len(data), size))


def relay(meter: StreamMeter, chunks: Iterable[bytes]) -> tuple[bytes, bytes]:
    """(what the client gets before SETTLE, what it gets after)."""
    before = b"".join([*(meter.feed(chunk) for chunk in chunks), meter.finish()])
    return before, meter.release()
