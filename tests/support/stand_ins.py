"""The sandbox for the tests of one module: at once, without pauses, with one tokenizer for all of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from gateway.access.breaker import Breaker
from gateway.access.verification import KeyVerifier
from gateway.keys.verify import Keys
from gateway.openai.tokenizer import Tokenizer
from gateway.sandbox.server import Sandbox, start

CODER: Final = Tokenizer()


class Clock:
    """A time that a test moves, Unix seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def asked_by(keys: Keys, clock: Clock, *, canary: str | None = None) -> KeyVerifier:
    """A verifier on `clock`, whose circuit stays open as briefly as possible."""
    return KeyVerifier(keys, Breaker(monotonic=clock, uniform=lambda least, _: least), canary, monotonic=clock)


@asynccontextmanager
async def sandbox_at(clock: Callable[[], float], stripe_file: Path | None = None) -> AsyncIterator[Sandbox]:
    """A sandbox whose time is `clock`; with a file, what Stripe knows outlives it."""
    running = await start(clock=clock, paced=False, coder=CODER, stripe_file=stripe_file)
    try:
        yield running
    finally:
        await running.close()


async def control(
    sandbox: Sandbox, vendor: str, path: str = "", /, *, method: str = "POST", **body: Any
) -> dict[str, Any]:
    """One control call; its JSON answer. Fails on any status but 200."""
    url = f"{sandbox.origin}/{vendor}/_control{path}"
    sent = body if method == "POST" else None
    async with aiohttp.ClientSession() as session, session.request(method, url, json=sent) as response:
        assert response.status == 200, await response.text()
        answer: dict[str, Any] = await response.json()
        return answer
