"""The rooms API on the public port, put together. Decides nothing: gateway/rooms does."""

import os
from collections.abc import Callable
from uuid import uuid4

from aiohttp import web

from gateway.access.admission import Admission
from gateway.config.key_ring import parse_ring
from gateway.config.settings import Settings
from gateway.http.credentials import key_of
from gateway.http.framing import EVENT_ID, check_framing
from gateway.kit.clock import now
from gateway.kit.errors import ApiError
from gateway.processes.front import Handler
from gateway.rooms.api import ReadBody, RoomsApi
from gateway.rooms.service import RoomKeeper
from gateway.rooms.store import Rooms
from gateway.stores.postgres_share import Share


def open_rooms(settings: Settings, connections: Share, admission: Admission, read_body: ReadBody) -> Handler:
    """Who answers /rooms; over connections that the caller closes. Without ROOMS_KEYS every answer is 503."""
    if settings.rooms_keys is None:
        return _not_configured
    ring = parse_ring(settings.rooms_keys.get_secret_value())
    keeper = RoomKeeper(Rooms(connections), ring, random_bytes=os.urandom, now=now)
    return handler(keeper, admission, read_body, new_id=lambda: str(uuid4()))


def handler(keeper: RoomKeeper, admission: Admission, read_body: ReadBody, *, new_id: Callable[[], str]) -> Handler:
    """The API over these rooms and this admission."""

    async def admit(request: web.BaseRequest) -> frozenset[str]:
        check_framing(request)
        key = key_of(request.headers)
        principal = await admission.admit(key, endpoint="rooms", peer=request.remote)
        if principal.due:
            admission.renew(key, endpoint="rooms")
        return principal.granted

    api = RoomsApi(keeper, admit=admit, read_body=read_body, new_id=new_id)

    async def handle(request: web.BaseRequest, event_id: str) -> web.StreamResponse:
        try:
            response = await api.handle(request)
        except ApiError as error:
            error.headers["Cache-Control"] = "no-store"
            raise
        response.headers[EVENT_ID] = event_id
        return response

    return handle


async def _not_configured(_request: web.BaseRequest, _event_id: str) -> web.StreamResponse:
    message = "This gateway keeps no rooms: ROOMS_KEYS is not set."
    raise ApiError(503, "rooms_not_configured", message, kind="server_error")
