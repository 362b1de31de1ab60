"""Keys of answers that run for long are looked at again: a revoked one must not go on listening.

Its client is told and let go, and the answer is read on as for any client that left, so that its row is exact. An
outage ends nobody: only a plain refusal does. One timer looks after all answers of the process.
"""

import asyncio
import contextlib
from typing import Final

import structlog

from gateway.access.admission import Admission
from gateway.http.credentials import key_of
from gateway.kit.errors import ApiError
from gateway.proxy.active_relays import ActiveRelays

REVOKED: Final = (401, 403)
_log: Final = structlog.get_logger("gateway.proxy")


class Recheck:
    """One per process."""

    def __init__(self, admission: Admission, active_relays: ActiveRelays) -> None:
        self._admission: Final = admission
        self._active_relays: Final = active_relays
        self._woken: Final = asyncio.Event()

    def wake(self) -> None:
        """A key was ended: its answers must not wait for the next look."""
        self._woken.set()

    async def turn(self, every_s: float) -> float:
        """Looks when it is time, or earlier when it is woken; the next turn waits by itself."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await self._woken.wait()
        self._woken.clear()
        await self.step_once()
        return 0.0

    async def step_once(self) -> int:
        """Looks at every answer that has a client. How many were ended."""
        ended = 0
        for relay in [relay for relay in self._active_relays.relays if not relay.result.client_left]:
            try:
                key = key_of(relay.request_headers)
                if (await self._admission.admit(key)).due:
                    self._admission.renew(key)
            except ApiError as error:
                if error.status in REVOKED:
                    _log.warning("key revoked while its answer ran", code=error.code)
                    await relay.refuse(error)
                    ended += 1
        return ended
