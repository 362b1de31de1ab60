"""Whose response is it: to anyone but its owner an upstream object does not exist.

Looked up memory → Redis → Postgres. Not found is 404; a store that does not answer is 503, never a guess.
"""

import re
from collections import OrderedDict
from typing import Final, Protocol

import structlog

from gateway.core.errors import ApiError, DependencyDown
from gateway.edges.buffer import Buffer

REMEMBERED_MAX: Final = 50_000
_RESPONSE_ID: Final = re.compile(r"[A-Za-z0-9_\-]{1,256}")
_log: Final = structlog.get_logger("gateway.owners")


class OwnerTable(Protocol):
    """What Postgres knows."""

    async def response_owner(self, response_id: str) -> str | None: ...


class Owners:
    """Ownership checks of one process."""

    def __init__(self, buffer: Buffer, table: OwnerTable) -> None:
        self._buffer: Final = buffer
        self._table: Final = table
        self._responses: Final[OrderedDict[str, str]] = OrderedDict()

    async def remember(self, response_id: str, user_id: str) -> None:
        """Before the client sees the id. Redis away costs nothing here: journal and ledger carry the owner too."""
        self._keep(response_id, user_id)
        try:
            await self._buffer.set_owner(response_id, user_id)
        except DependencyDown as error:
            _log.warning("response owner not in redis", response_id=response_id, detail=error.detail)

    async def check_response(self, response_id: str, user_id: str, *, param: str | None = None) -> None:
        """Raises ApiError: 404 when it is not this user's, 503 when nobody can tell."""
        owner = None
        if _RESPONSE_ID.fullmatch(response_id) is not None:  # nothing else is asked of the stores, or echoed
            owner = self._responses.get(response_id) or await self._look_up(response_id)
        else:
            response_id = "(not an id)"
        if owner != user_id:
            code = "previous_response_not_found" if param else "response_not_found"
            raise ApiError(404, code, f"Response with id '{response_id}' not found.", param=param)

    async def _look_up(self, response_id: str) -> str | None:
        away: DependencyDown | None = None
        for ask in (self._buffer.get_owner, self._table.response_owner):
            try:
                owner = await ask(response_id)
            except DependencyDown as error:
                away = error
                continue
            if owner is not None:
                self._keep(response_id, owner)
                return owner
        if away is not None:
            raise cannot_tell("whose response this is") from away
        return None

    def _keep(self, response_id: str, user_id: str) -> None:
        self._responses[response_id] = user_id
        while len(self._responses) > REMEMBERED_MAX:
            self._responses.popitem(last=False)


def cannot_tell(what: str) -> ApiError:
    """503: a store that knows `what` does not answer."""
    message = f"The gateway cannot check {what} right now; please try again."
    return ApiError(503, "ownership_unavailable", message, kind="server_error", headers={"Retry-After": "2"})
