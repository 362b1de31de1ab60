"""Webhooks of the Daily.co stand-in: registrations, the question whether anybody listens, deliveries with their tries.

Sends to loopback only. As Daily.co's docs say, the list is of the whole domain, and its entries are not all alike.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from gateway.meetings.signature import sign
from gateway.sandbox.daily.service import World

PING: Final = b'{"test":"test"}'
BREAKER: Final = 3
"""Failures in a row after which a webhook of the kind `circuit-breaker` is told nothing more."""
TRIES: Final = 5
"""Of the kind `exponential`, per event."""
BACKOFF_S: Final = (1.0, 30.0, 120.0, 900.0)
ODD_HOOKS: Final[tuple[Any, ...]] = (
    {"uuid": "odd-types", "url": "https://example.com/a", "hmac": None, "eventTypes": None, "state": 1},
    {"uuid": "odd-count", "url": None, "eventTypes": ["x", None], "state": "ACTVIE", "failedCount": 1.0},
    {"uuid": "odd-url", "url": "https://[example", "retryType": 7, "lastMomentPushed": 1692124192},
    {"url": "https://example.com/webhooks/daily"},
    None,
)
"""Of other products, of older registrations, and half filled: what a list may hold beside ours."""
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass
class Hook:
    """A registration."""

    uuid: str
    url: str
    hmac: str
    event_types: list[str]
    retry_type: str
    basic_auth: str | None = None
    state: str = "ACTIVE"
    failed_count: int = 0
    last_moment_pushed: str | None = None
    created_at: str | None = None

    def plain(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "uuid": self.uuid,
            "url": self.url,
            "hmac": self.hmac,
            "basicAuth": self.basic_auth,
            "retryType": self.retry_type,
            "eventTypes": self.event_types,
            "state": self.state,
            "failedCount": self.failed_count,
            "lastMomentPushed": self.last_moment_pushed,
            "domainId": "sandbox",
            "createdAt": self.created_at,
            "updatedAt": self.created_at,
        }


@dataclass
class Delivery:
    """One event on its way to one webhook."""

    event_id: str
    type: str
    url: str
    statuses: list[int] = field(default_factory=list)
    """Of each try; 0: no answer."""


class NobodyListens(Exception):
    """The webhook's URL did not answer 200 in time."""


class Hooks:
    """All registrations. `speed` divides the pauses between tries."""

    def __init__(self, *, clock: Callable[[], float], speed: float = 1.0, answer_s: float = 5.0) -> None:
        self._clock: Final = clock
        self.speed = speed
        self.answer_s = answer_s
        """Seconds that a receiver has."""
        self.registered: Final[dict[str, Hook]] = {}
        self.foreign: list[Any] = []
        """Entries of the list that are not ours, as they are."""
        self.overlay: dict[str, Any] = {}
        """Members of our entries that are told otherwise."""
        self.without: list[str] = []
        """Members of our entries that are left out."""
        self.deliveries: Final[list[Delivery]] = []
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._session: aiohttp.ClientSession | None = None
        self.world: World | None = None

    async def register(self, uuid: str | None, body: dict[str, Any]) -> Hook:
        """Makes one, or changes one and sets it going again. Raises NobodyListens, ValueError naming the field."""
        before = None if uuid is None else self.registered[uuid]
        url = body.get("url", before.url if before else None)
        if not isinstance(url, str) or urlsplit(url).hostname not in _LOOPBACK:
            raise ValueError("url must be one of loopback: the stand-in calls nobody else")
        hook = Hook(
            before.uuid if before else secrets.token_hex(16),
            url,
            body.get("hmac") or (before.hmac if before else base64.b64encode(secrets.token_bytes(32)).decode()),
            list(body.get("eventTypes") or (before.event_types if before else [])),
            body.get("retryType") or (before.retry_type if before else "circuit-breaker"),
            body.get("basicAuth", before.basic_auth if before else None),
            created_at=before.created_at if before else self._iso(),
        )
        if await self._send(hook, PING) != 200:
            raise NobodyListens("non-200 status code returned from webhook endpoint")
        self.registered[hook.uuid] = hook
        return hook

    def plain(self, hook: Hook) -> dict[str, Any]:
        """An entry as the API shows it now."""
        told = hook.plain() | self.overlay
        return {name: value for name, value in told.items() if name not in self.without}

    def listed(self) -> list[Any]:
        """The whole domain's."""
        return [*self.foreign, *(self.plain(hook) for hook in self.registered.values())]

    def tell(self, event: dict[str, Any]) -> None:
        """Sends an event to every webhook that wants its type."""
        for hook in list(self.registered.values()):
            if hook.state == "ACTIVE" and event["type"] in hook.event_types:
                delivery = Delivery(event["id"], event["type"], hook.url)
                self.deliveries.append(delivery)
                task = asyncio.get_running_loop().create_task(self._deliver(hook, delivery, event))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Until everything on its way has arrived or was given up."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Breaks off what is on its way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _iso(self) -> str:
        at = datetime.fromtimestamp(self._clock(), UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def _deliver(self, hook: Hook, delivery: Delivery, event: dict[str, Any]) -> None:
        body = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
        tries = TRIES if hook.retry_type == "exponential" else 1
        for number in range(tries):
            if hook.state != "ACTIVE":
                return
            status = await self._send(hook, body)
            delivery.statuses.append(status)
            hook.last_moment_pushed = self._iso()
            if status == 200:
                hook.failed_count = 0
                return
            hook.failed_count += 1
            if hook.retry_type == "circuit-breaker" and hook.failed_count >= BREAKER:
                hook.state = "FAILED"
            if number + 1 < tries:
                await asyncio.sleep(BACKOFF_S[number] / self.speed)

    async def _send(self, hook: Hook, body: bytes) -> int:
        faults = None if self.world is None else self.world.faults
        timestamp = str(int(self._clock() * (1000 if faults is not None and faults.milliseconds else 1)))
        headers = {
            "Content-Type": "application/json",
            "X-Webhook-Timestamp": timestamp,
            "X-Webhook-Signature": sign(base64.b64decode(hook.hmac), timestamp, body).decode(),
        }
        if hook.basic_auth is not None:
            headers["Authorization"] = f"Basic {hook.basic_auth}"
        if faults is not None and faults.rewritten and body != PING:
            body = json.dumps(json.loads(body), indent=1, ensure_ascii=False).encode()
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        timeout = aiohttp.ClientTimeout(total=self.answer_s)
        try:
            async with self._session.post(hook.url, data=body, headers=headers, timeout=timeout) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return 0
