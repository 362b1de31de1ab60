"""The rooms API as it is on the public port, in this process, over a real database; for its tests."""

import io
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast
from uuid import uuid4

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy

from gateway.accounts.store import Accounts
from gateway.config.key_ring import KeyRing
from gateway.config.settings import Settings
from gateway.http.connections import ClientConnections
from gateway.http.framing import refusal
from gateway.http.uploads import Uploads
from gateway.kit.errors import ApiError
from gateway.limits.local_limits import LocalLimits
from gateway.processes.front import Front
from gateway.processes.rooms_api import handler
from gateway.processes.server import open_server
from gateway.proxy.handler import Proxy
from gateway.proxy.request_info import RequestInfo
from gateway.rooms.service import RoomKeeper
from gateway.rooms.store import Rooms
from gateway.stores.postgres import Pool
from gateway.trail.store import Trail
from tests.access.admissions import AdmissionFakes, valid
from tests.support.servers import free_port

OLD: Final = KeyRing({"old": bytes(range(32))})
BOTH: Final = KeyRing({"new": bytes(range(32, 64)), "old": bytes(range(32))})
NEW: Final = KeyRing({"new": bytes(range(32, 64))})
CANARY: Final = "CANARY-9c41"
"""Stands in sensitive fields, and may be found nowhere."""
NOW: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: dict[str, Any]
    headers: "CIMultiDictProxy[str]"

    @property
    def code(self) -> str:
        """The error's own code."""
        return str(self.body["error"]["code"])


class _OnlyIds:
    """As much of the proxy as a flow beside it needs."""

    def new_id(self) -> str:
        return str(uuid4())

    def refuse(self, _seen: RequestInfo, event_id: str, refused: ApiError) -> web.Response:
        return refusal(refused, event_id)


class RoomsApi:
    """The API with its database, and keys that have whatever permissions a test wants."""

    def __init__(self, pool: Pool, session: aiohttp.ClientSession, url: str, admission: AdmissionFakes) -> None:
        self.pool, self.url, self._session, self._admission = pool, url, session, admission
        self.permissions: list[str] = ["rooms.*"]

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request, as a key with `permissions`. A body of bytes goes as it is."""
        self._admission.keys.answer = valid(permissions=self.permissions)
        raw: dict[str, Any] = (
            {"data": io.BytesIO(body)} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        )
        sent = {"Authorization": "Bearer k" + "-".join(self.permissions), **headers}
        async with self._session.request(method, self.url + path, headers=sent, **raw) as got:
            return Answer(got.status, await got.json(), got.headers)

    async def user(self, email: str) -> str:
        """A new user's id."""
        return await Accounts(self.pool).create_user(email)

    async def meeting(self, user_id: str) -> str:
        """A new meeting's id."""
        query = (
            "insert into meetings (user_id, room_name) values ($1::uuid, gen_random_uuid()::text) returning id::text"
        )
        return str(await self.pool.fetchval(query, user_id))

    async def made(self, **fields: Any) -> dict[str, Any]:
        """A new room."""
        answer = await self.call("POST", "/rooms", {"room_name": "interview", **fields})
        assert answer.status == 201, answer.body
        return answer.body


@asynccontextmanager
async def open_rooms_api(pool: Pool, ring: KeyRing = BOTH, settings: Settings | None = None) -> AsyncIterator[RoomsApi]:
    """Serves until the context ends."""
    admission = AdmissionFakes()
    keeper = RoomKeeper(Rooms(pool), Trail(pool), ring, random_bytes=os.urandom, now=lambda: NOW)
    settings = Settings() if settings is None else settings
    clients = ClientConnections(settings.connections, Uploads(settings.connections), files=20_000, write_stall_s=60)
    local = LocalLimits(settings.limits, monotonic=time.monotonic)
    rooms = handler(keeper, admission.admission, local, clients, new_id=lambda: str(uuid4()))
    front = Front(cast(Proxy, _OnlyIds()), {"/rooms": rooms})
    runner = web.ServerRunner(open_server(front, clients, None, keepalive_s=75))
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield RoomsApi(pool, session, f"http://127.0.0.1:{port}", admission)
    finally:
        await runner.cleanup()
