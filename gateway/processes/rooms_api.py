"""The rooms API on the public port, put together. Decides nothing: gateway/rooms does."""

import os
from collections.abc import Callable
from typing import Final, NamedTuple
from uuid import uuid4

from aiohttp import web

from gateway.access.admission import Admission
from gateway.config.key_ring import parse_ring
from gateway.config.settings import Settings
from gateway.http.connections import ClientConnections
from gateway.http.credentials import key_of
from gateway.http.framing import EVENT_ID, check_framing
from gateway.http.route import Caller
from gateway.kit.clock import now
from gateway.kit.errors import ApiError
from gateway.limits.claims import KeyLimits
from gateway.limits.local_limits import KeyUse, LocalLimits
from gateway.processes.front import Handler
from gateway.rooms.api import RoomsApi
from gateway.rooms.service import RoomKeeper
from gateway.rooms.store import Rooms
from gateway.stores.postgres_share import Share
from gateway.trail.store import Trail


class _Call(NamedTuple):
    """What is counted of a request until it is answered."""

    key: str
    key_limits: KeyLimits | None
    use: KeyUse


_CALL: Final = web.RequestKey("rooms call", _Call)


def open_rooms(
    settings: Settings, connections: Share, admission: Admission, local: LocalLimits, clients: ClientConnections
) -> Handler:
    """Who answers /rooms; over connections that the caller closes. Without ROOMS_KEYS every answer is 503."""
    if settings.rooms_keys is None:
        return _not_configured
    ring = parse_ring(settings.rooms_keys.get_secret_value())
    keeper = RoomKeeper(Rooms(connections), Trail(connections), ring, random_bytes=os.urandom, now=now)
    return handler(keeper, admission, local, clients, new_id=lambda: str(uuid4()))


def handler(
    keeper: RoomKeeper,
    admission: Admission,
    local: LocalLimits,
    clients: ClientConnections,
    *,
    new_id: Callable[[], str],
) -> Handler:
    """The API over these rooms and this admission. What a key holds and asks for counts as it does below /v1."""

    async def admit(request: web.BaseRequest) -> Caller:
        check_framing(request)
        key = key_of(request.headers)
        principal = await admission.admit(key, endpoint="rooms", peer=request.remote)
        if principal.due:
            admission.renew(key, endpoint="rooms")
        key_id = principal.unkey_key_id
        clients.own(request.protocol, key_id)
        request[_CALL] = _Call(key_id, principal.key_limits, local.begin(key_id, principal.key_limits))
        return Caller(principal.granted, key_id)

    async def read_body(request: web.BaseRequest, bytes_max: int) -> bytes:
        return await clients.uploads.read(request, bytes_max, request[_CALL].key)

    api = RoomsApi(keeper, admit=admit, read_body=read_body, new_id=new_id)

    async def handle(request: web.BaseRequest, event_id: str) -> web.StreamResponse:
        refused: ApiError | None = None
        try:
            response = await api.handle(request)
        except ApiError as error:
            error.headers["Cache-Control"] = "no-store"
            refused = error
            raise
        finally:
            if (call := request.get(_CALL)) is not None:
                local.end(call.use, call.key_limits, refused)
        response.headers[EVENT_ID] = event_id
        return response

    return handle


async def _not_configured(_request: web.BaseRequest, _event_id: str) -> web.StreamResponse:
    message = "This gateway keeps no rooms: ROOMS_KEYS is not set."
    raise ApiError(503, "rooms_not_configured", message, kind="server_error")
