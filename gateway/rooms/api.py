"""The rooms API over HTTP, for the platform's backend: its routes, who may use them, and what they answer.

Whoever has the permission sees every user's rooms: these keys belong to the platform, not to a user. Sensitive fields
leave only on `?include=sensitive`. Nothing of a body, and no field, may be logged.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from aiohttp import web

from gateway.http.fields import Nothing
from gateway.http.openapi import About, build_document
from gateway.http.route import Answer, Caller, Refusal, Result, Route, RouteCall
from gateway.http.router import AnyRoute, Router
from gateway.kit.errors import ApiError
from gateway.kit.version import VERSION
from gateway.rooms.request import NewRoom, RoomChange, RoomListQuery, RoomPath, RoomQuery
from gateway.rooms.room import READ, READ_SENSITIVE, WRITE, Room
from gateway.rooms.sealing import NotOpened
from gateway.rooms.service import RoomKeeper
from gateway.rooms.view import RoomList, RoomView, WrittenRoom, view_of, written_view_of

PATH: Final = "/rooms"
BODY_BYTES_MAX: Final = 1024 * 1024

Admit = Callable[[web.BaseRequest], Awaitable[Caller]]
"""Whoever sends this request. Raises ApiError for who may not come in at all."""
ReadBody = Callable[[web.BaseRequest, int], Awaitable[bytes]]
"""The body, up to so many bytes. Raises ApiError."""

COMMON: Final = (
    Refusal(400, "duplicate_header", "a header that names the key comes twice"),
    Refusal(400, "invalid_framing", "HTTP/1.0 with a Transfer-Encoding, a coding given twice, or chunks that are none"),
    Refusal(401, "missing_api_key", "no key was sent"),
    Refusal(401, "invalid_api_key", "the key is unknown, revoked or expired"),
    Refusal(403, "key_not_linked", "the key has no user of this gateway"),
    Refusal(403, "user_disabled", "the user of the key is disabled"),
    Refusal(403, "access_denied", "the key may not be used now"),
    Refusal(403, "insufficient_permissions", "the key lacks the permission that the message names"),
    Refusal(415, "unsupported_content_encoding", "the body is compressed"),
    Refusal(429, "rate_limit_exceeded", "too many requests of this key, or with unknown keys"),
    Refusal(429, "insufficient_quota", "the credit of this key is used up"),
    Refusal(500, "gateway_error", "a bug in the gateway"),
    Refusal(501, "unsupported_transfer_encoding", "a Transfer-Encoding other than chunked"),
    Refusal(503, "key_verification_unavailable", "Unkey did not answer"),
    Refusal(503, "gateway_unavailable", "PostgreSQL did not answer"),
    Refusal(503, "rooms_not_configured", "ROOMS_KEYS is not set"),
    Refusal(505, "http_version_not_supported", "neither HTTP/1.0 nor HTTP/1.1"),
)
"""What any of the routes may answer with."""
_NOT_FOUND: Final = Refusal(404, "room_not_found", "there is no such room")
_NOT_READABLE: Final = Refusal(500, "room_not_readable", "the sensitive fields cannot be opened")
_TOO_LARGE: Final = Refusal(413, "room_too_large", "`data` or `sensitive` would be too large")
_ETAG: Final = {"ETag": "The version of the room, in quotes."}
_log: Final = structlog.get_logger("gateway.rooms")


class RoomsApi:
    """One per process."""

    def __init__(self, keeper: RoomKeeper, *, admit: Admit, read_body: ReadBody, new_id: Callable[[], str]) -> None:
        self._keeper: Final = keeper
        self._new_id: Final = new_id
        self.routes: Final = self._list_routes()
        self._router: Final = Router(
            PATH,
            self.routes,
            admit=admit,
            read_body=read_body,
            body_bytes_max=BODY_BYTES_MAX,
            tells_methods=False,  # 404 from its first day on
        )

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answers any request below /rooms. Raises ApiError, DependencyDown."""
        try:
            reply = await self._router.handle(request)
        except NotOpened as error:
            path = request.raw_path.partition("?")[0]
            _log.error("a room does not open", path=path, error=type(error).__name__)
            message = "The sensitive fields of this room cannot be opened; the operator has been told."
            raise ApiError(500, "room_not_readable", message, kind="server_error") from None
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)

    def _list_routes(self) -> list[AnyRoute]:
        one = f"{PATH}/{{id}}"
        shown = {200: Result(RoomView, "The room.", _ETAG)}
        written = {200: Result(WrittenRoom, "The room.", _ETAG)}
        return [
            Route(
                "POST", PATH, "create_room", "Create a room.", WRITE, Nothing, Nothing, NewRoom, self._create,
                {201: Result(WrittenRoom, "The new room.", {**_ETAG, "Location": "Its path."})},
                (Refusal(409, "room_exists", "there is a room of this id already"), _TOO_LARGE),
            ),
            Route(
                "GET", PATH, "list_rooms", "List rooms, the newest first.",
                READ, Nothing, RoomListQuery, Nothing, self._page, {200: Result(RoomList, "A page of rooms.")},
            ),
            Route(
                "GET", f"{PATH}/openapi.json", "describe_rooms", "Get this document.", None, Nothing, Nothing, Nothing,
                self._describe, {200: Result(dict[str, Any], "An OpenAPI document.")},
            ),
            Route(
                "GET", one, "get_room", "Get a room.", READ, RoomPath, RoomQuery, Nothing, self._get, shown,
                (_NOT_FOUND, _NOT_READABLE),
            ),
            Route(
                "PATCH", one, "update_room", "Change a room.", WRITE, RoomPath, Nothing, RoomChange, self._update,
                written,
                (
                    Refusal(400, "missing_field", "the body names nothing to change"),
                    _NOT_FOUND,
                    Refusal(409, "version_conflict", "somebody else has changed the room"),
                    Refusal(409, "room_expired", "the room has expired"),
                    _TOO_LARGE,
                    _NOT_READABLE,
                ),
                headers={"If-Match": 'The version that the change was made from, as in ETag: `"3"`.'},
            ),
            Route(
                "POST", f"{one}/expire", "expire_room", "Erase the sensitive fields of a room, for good.", WRITE,
                RoomPath, Nothing, Nothing, self._expire, written, (_NOT_FOUND,),
                no_body="Expiring a room takes no body.",
            ),
        ]  # fmt: skip

    async def _create(self, call: RouteCall[Nothing, Nothing, NewRoom]) -> Answer:
        room = await self._keeper.create(call.body.id or self._new_id(), call.body.change())
        return Answer(201, _view_for(call, room), {"Location": f"{PATH}/{room.id}", **_with_etag(room)})

    async def _page(self, call: RouteCall[Nothing, RoomListQuery, Nothing]) -> Answer:
        query = call.query
        rooms, more = await self._keeper.page(query.to_filter(), after=query.after or None, rows_max=query.limit)
        last = rooms[-1].id if rooms else None
        return Answer(200, RoomList(data=[view_of(room) for room in rooms], has_more=more, last_id=last))

    async def _get(self, call: RouteCall[RoomPath, RoomQuery, Nothing]) -> Answer:
        if not call.query.include:
            room = await self._keeper.get(call.path.id)
            return Answer(200, view_of(room), _with_etag(room))
        call.require(READ_SENSITIVE)
        room = await self._keeper.get(call.path.id)
        sensitive = await self._keeper.read_sensitive(room, call.caller.key_id)
        return Answer(200, view_of(room, sensitive), _with_etag(room))

    async def _update(self, call: RouteCall[RoomPath, Nothing, RoomChange]) -> Answer:
        change, version = call.body.change(call.headers.get("If-Match"))
        room = await self._keeper.update(call.path.id, change, version=version)
        return Answer(200, _view_for(call, room), _with_etag(room))

    async def _expire(self, call: RouteCall[RoomPath, Nothing, Nothing]) -> Answer:
        room = await self._keeper.expire(call.path.id)
        return Answer(200, _view_for(call, room), _with_etag(room))

    async def _describe(self, _call: RouteCall[Nothing, Nothing, Nothing]) -> Answer:
        about = About("Rooms", VERSION, "Rooms of interviews and meetings, for the platform's backend.", COMMON)
        return Answer(200, build_document(about, self.routes))


def _view_for(call: RouteCall[Any, Any, Any], room: Room) -> WrittenRoom:
    """What who has written a room is shown of it."""
    return written_view_of(room, may_read=call.has(READ))


def _with_etag(room: Room) -> dict[str, str]:
    return {"ETag": f'"{room.version}"'}
