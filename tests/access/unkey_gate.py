"""An admission in front of the Unkey stand-in and a real database, at the stand-in's time, which control calls move."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from gateway.access.admission import Admission, Principal
from gateway.access.breaker import Breaker
from gateway.access.identities import KeyOwners
from gateway.access.verification import KeyVerifier
from gateway.config.settings import KeySettings, LimitSettings
from gateway.keys.verify import Keys
from gateway.kit.errors import ApiError
from gateway.sandbox import credentials
from tests.keys.unkey_at_work import KeySides
from tests.support.stand_ins import control


class Gate:
    """What a proxy makes of a key."""

    def __init__(self, sides: KeySides, admission: Admission, verifier: KeyVerifier) -> None:
        self.sides = sides
        self.admission = admission
        self.verifier = verifier

    async def admit(self, key: str) -> Principal:
        """As the proxy does it, renewal included."""
        principal = await self.admission.admit(key)
        if principal.due:
            self.admission.renew(key)
        behind = [*self.admission._asking.values(), *filter(None, [self.verifier._checking])]
        await asyncio.gather(*behind, return_exceptions=True)
        return principal

    async def status(self, key: str) -> int:
        """200 where the key is let in."""
        try:
            await self.admit(key)
        except ApiError as error:
            return error.status
        return 200

    async def refused(self, key: str) -> ApiError:
        """How it is refused."""
        try:
            await self.admit(key)
        except ApiError as error:
            return error
        raise AssertionError("it was let in")

    async def later(self, seconds: float) -> None:
        """Time passes."""
        await control(self.sides.sandbox, "unkey", "/clock", seconds=seconds)

    async def mode(self, **fields: Any) -> None:
        """How the stand-in behaves from now on."""
        await control(self.sides.sandbox, "unkey", "/mode", **fields)

    async def change(self, key_id: str, **fields: Any) -> None:
        """Somebody changes a key in Unkey's dashboard."""
        await control(self.sides.sandbox, "unkey", "/change", keyId=key_id, **fields)


@asynccontextmanager
async def gate_at(sides: KeySides, *, canary: str | None = None, **settings: Any) -> AsyncIterator[Gate]:
    """One proxy's admission, which has remembered nothing yet but the canary."""
    clock = sides.sandbox.unkey.now_s
    async with aiohttp.ClientSession() as session:
        keys = Keys(session, sides.sandbox.unkey_base_url, credentials.UNKEY_ROOT_KEY, timeout_s=5)
        breaker = Breaker(monotonic=clock, uniform=lambda least, _: least)
        verifier = KeyVerifier(keys, breaker, canary, monotonic=clock)
        await verifier.check()
        admission = Admission(
            verifier,
            KeyOwners(sides.ledger.pool),
            KeySettings(**settings),
            LimitSettings(),
            pepper=b"p",
            monotonic=clock,
            unix_s=clock,
            draw=lambda _: 0,
        )
        yield Gate(sides, admission, verifier)
