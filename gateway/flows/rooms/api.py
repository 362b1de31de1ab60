"""The rooms API over HTTP, for the platform's backend: which request is what, who may do it, and what is answered.

Whoever has the permission sees every user's rooms: these keys belong to the platform, not to a user. Sensitive fields
leave only on `?include=sensitive`. Nothing of a body, and no field, may be logged.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from gateway.core.errors import ApiError
from gateway.core.ids import is_uuid
from gateway.core.instants import rfc3339
from gateway.core.rooms import READ, READ_SENSITIVE, WRITE, Room, missing
from gateway.core.sealing import NotOpened
from gateway.flows.rooms import request as asked
from gateway.flows.rooms.rooms import RoomKeeper

PATH: Final = "/rooms"
BODY_BYTES_MAX: Final = 1024 * 1024

Admit = Callable[[web.BaseRequest], Awaitable[frozenset[str]]]
"""The permissions of whoever sends this request. Raises ApiError for who may not come in at all."""
ReadBody = Callable[[web.BaseRequest, int], Awaitable[bytes]]
"""The body, up to so many bytes. Raises ApiError."""
_log: Final = structlog.get_logger("gateway.rooms")


class RoomsApi:
    """One per process."""

    def __init__(self, keeper: RoomKeeper, *, admit: Admit, read_body: ReadBody, new_id: Callable[[], str]) -> None:
        self._keeper: Final = keeper
        self._admit: Final = admit
        self._read_body: Final = read_body
        self._new_id: Final = new_id

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answers any request below /rooms. Raises ApiError, DependencyDown."""
        path, _, query = request.raw_path.partition("?")
        granted = await self._admit(request)
        try:
            return await self._route(request, path, query.partition("#")[0], granted)
        except NotOpened as error:
            _log.error("a room does not open", path=path, error=type(error).__name__)
            message = "The sensitive fields of this room cannot be opened; the operator has been told."
            raise ApiError(500, "room_not_readable", message, kind="server_error") from None

    async def _route(self, request: web.BaseRequest, path: str, query: str, granted: frozenset[str]) -> web.Response:
        parts = path.removeprefix(PATH).split("/")[1:]
        match request.method, parts:
            case "POST", []:
                return await self._create(request, query, granted)
            case "GET", []:
                return await self._page(query, granted)
            case "GET", [room_id] if is_uuid(room_id):
                return await self._get(room_id.lower(), query, granted)
            case "PATCH", [room_id] if is_uuid(room_id):
                return await self._update(request, room_id.lower(), query, granted)
            case "POST", [room_id, "expire"] if is_uuid(room_id):
                return await self._expire(request, room_id.lower(), query, granted)
            case ("GET" | "PATCH", [_]) | ("POST", [_, "expire"]):
                raise ApiError(400, "invalid_value", "The room's id in the path must be a UUID.", param="id")
            case _:
                raise ApiError(404, "endpoint_not_supported", "There is no such method and path below /rooms.")

    async def _create(self, request: web.BaseRequest, query: str, granted: frozenset[str]) -> web.Response:
        _may(granted, WRITE)
        asked.no_query(query)
        room_id, change = asked.read_new(await self._read_body(request, BODY_BYTES_MAX))
        room = await self._keeper.create(room_id or self._new_id(), change)
        return _answer(_plain(room), room, status=201, headers={"Location": f"{PATH}/{room.id}"})

    async def _page(self, query: str, granted: frozenset[str]) -> web.Response:
        _may(granted, READ)
        listing = asked.read_listing(query)
        rooms, more = await self._keeper.page(listing.wanted, after=listing.after, rows_max=listing.rows_max)
        last = rooms[-1].id if rooms else None
        return _answer({"object": "list", "data": [_plain(room) for room in rooms], "has_more": more, "last_id": last})

    async def _get(self, room_id: str, query: str, granted: frozenset[str]) -> web.Response:
        _may(granted, READ)
        if not asked.read_include(query):
            room = await self._keeper.get(room_id)
            return _answer(_plain(room), room)
        _may(granted, READ_SENSITIVE)
        room = await self._keeper.get(room_id)
        return _answer(_plain(room) | {"sensitive": self._keeper.sensitive_of(room)}, room)

    async def _update(
        self, request: web.BaseRequest, room_id: str, query: str, granted: frozenset[str]
    ) -> web.Response:
        _may(granted, WRITE)
        asked.no_query(query)
        body = await self._read_body(request, BODY_BYTES_MAX)
        change, version = asked.read_patch(body, request.headers.get("If-Match"))
        room = await self._keeper.update(room_id, change, version=version)
        return _answer(_plain(room), room)

    async def _expire(
        self, request: web.BaseRequest, room_id: str, query: str, granted: frozenset[str]
    ) -> web.Response:
        _may(granted, WRITE)
        asked.no_query(query)
        if await self._read_body(request, BODY_BYTES_MAX) not in (b"", b"{}"):
            raise ApiError(400, "unknown_field", "Expiring a room takes no body.")
        room = await self._keeper.expire(room_id)
        return _answer(_plain(room), room)


def _may(granted: frozenset[str], permission: str) -> None:
    lacks = missing(granted, (permission,))
    if lacks is not None:
        raise ApiError(403, "insufficient_permissions", f"This API key lacks the permission {lacks!r}.")


def _plain(room: Room) -> dict[str, Any]:
    """The harmless columns, as the API shows them."""
    return {
        "object": "room",
        "id": room.id,
        "room_name": room.room_name,
        "user_id": room.user_id,
        "meeting_id": room.meeting_id,
        "state": room.state,
        "data": room.data,
        "has_sensitive": room.sealed is not None,
        "source_id": room.source_id,
        "started_at": rfc3339(room.started_at),
        "ended_at": rfc3339(room.ended_at),
        "expires_at": rfc3339(room.expires_at),
        "expired_at": rfc3339(room.expired_at),
        "created_at": rfc3339(room.created_at),
        "updated_at": rfc3339(room.updated_at),
        "version": room.version,
    }


def _answer(
    body: dict[str, Any], room: Room | None = None, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    passed = {"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})}
    if room is not None:
        passed["ETag"] = f'"{room.version}"'
    return web.Response(status=status, body=msgspec.json.encode(body), headers=passed)
