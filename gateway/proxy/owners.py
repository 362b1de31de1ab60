"""Whose response is it, and whose item of a response: to anyone but its owner an upstream object does not exist.

Looked up memory → Redis → Postgres, in this order: the batch writer takes an owner out of Redis after Postgres has it.
Not found is 404; a store that does not answer is 503, never a guess. So is an outage of Postgres that was so long that
an owner may have expired in Redis, and not be in Postgres yet.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import structlog

from gateway.http.errors import cannot_tell
from gateway.kit.errors import ApiError, DependencyDown
from gateway.ledger.stream import Buffer
from gateway.openai.request import References
from pricing.readers.body import ITEMS_MAX

REMEMBERED_MAX: Final = 100_000
OBJECT_ID: Final = re.compile(r"[A-Za-z0-9_\-]{1,256}")
_log: Final = structlog.get_logger("gateway.owners")


class OwnerTable(Protocol):
    """What Postgres knows."""

    async def owners(self, object_ids: Sequence[str]) -> dict[str, str]: ...


class Owners:
    """Ownership checks of one process."""

    def __init__(self, buffer: Buffer, table: OwnerTable) -> None:
        self._buffer: Final = buffer
        self._table: Final = table
        self._known: Final[OrderedDict[str, str]] = OrderedDict()

    async def remember(self, object_ids: Sequence[str], user_id: str) -> None:
        """Before the client sees the ids. Redis away costs nothing here: journal and ledger carry the owner too."""
        self._keep(object_ids, user_id)
        try:
            await self._buffer.set_owners(object_ids, user_id)
        except DependencyDown as error:
            _log.warning("owner not in redis", object_id=object_ids[0], objects=len(object_ids), detail=error.detail)

    async def check(self, refers: References, user_id: str) -> None:
        """Raises ApiError as `check_response` does, for all that a request goes on from."""
        if refers.previous_response_id is not None:
            await self.check_response(refers.previous_response_id, user_id, param="previous_response_id")
        if refers.compared_response_id is not None:
            param = "prompt_cache_options.comparison_response_id"
            await self.check_response(refers.compared_response_id, user_id, param=param)
        if refers.item_ids:
            await self._check_items(refers.item_ids, user_id)

    async def check_response(self, response_id: str, user_id: str, *, param: str | None = None) -> None:
        """Raises ApiError: 404 when it is not this user's, 503 when that is unknown."""
        owners = await self._find([response_id], "response")
        if owners.get(response_id) != user_id:
            code = "previous_response_not_found" if param == "previous_response_id" else "response_not_found"
            raise ApiError(404, code, f"Response with id '{_quote_id(response_id)}' not found.", param=param)

    async def _check_items(self, item_ids: Sequence[str], user_id: str) -> None:
        owners = await self._find(item_ids, "item")
        for item_id in item_ids:
            if owners.get(item_id) != user_id:
                raise _no_item(item_id)

    async def _find(self, object_ids: Sequence[str], what: str) -> dict[str, str]:
        """The owners of those that are known, each store asked once. Raises ApiError 503 when a silent one may know."""
        asked = [object_id for object_id in object_ids if OBJECT_ID.fullmatch(object_id) is not None]
        found = {object_id: owner for object_id in asked if (owner := self._known.get(object_id)) is not None}
        away: DependencyDown | None = None
        for ask in (self._buffer.get_owners, self._table.owners):
            missing = [object_id for object_id in asked if object_id not in found]
            if not missing:
                return found
            try:
                owners = await ask(missing)
            except DependencyDown as error:
                away = error
                continue
            for object_id, owner in owners.items():
                self._keep([object_id], owner)
            found |= owners
        if any(object_id not in found for object_id in asked) and (away is not None or await self._is_behind()):
            raise cannot_tell(f"whose {what} this is") from away
        return found

    async def _is_behind(self) -> bool:
        """Whether Postgres may come to know an owner that has expired in Redis."""
        try:
            return await self._buffer.is_behind()
        except DependencyDown:
            return True

    def _keep(self, object_ids: Iterable[str], user_id: str) -> None:
        for object_id in object_ids:
            self._known[object_id] = user_id
        while len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)


def _quote_id(object_id: str) -> str:
    """Nothing but an id is echoed."""
    return "(not an id)" if OBJECT_ID.fullmatch(object_id) is None else object_id


def _no_item(item_id: str) -> ApiError:
    """As OpenAI says it of an item that it does not have (can1357/oh-my-pi issue 41), and what holds only here."""
    message = (
        f"Item with id '{_quote_id(item_id)}' not found. Items are not persisted when `store` is set to false. Try "
        "again with `store` set to true, or remove this item from your input. This gateway keeps the ids of the first "
        f"{ITEMS_MAX} items of an answer, and none of an answer above 1 MiB that was not streamed; repeat other items "
        "in full, reasoning with its `encrypted_content`."
    )
    return ApiError(404, "item_not_found", message, param="input")
