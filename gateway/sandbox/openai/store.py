"""What the OpenAI stand-in keeps: responses that were stored, with their input, until they are deleted or too many."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

STORED_MAX: Final = 20_000


class StoredResponse(NamedTuple):
    """One response that can be fetched, continued and deleted."""

    response: dict[str, Any]
    """The object as it is fetched: in progress, or at its end."""
    events: Callable[[], list[bytes]]
    """Makes its event stream again as far as it was sent, for `GET …?stream=true`."""
    items: list[Any]
    """Its own input."""
    conversation: list[Any]
    """Everything up to its output, which a response that follows it reads."""


class ResponseStore:
    """Stored responses by id, the newest last."""

    def __init__(self) -> None:
        self._stored: Final[OrderedDict[str, StoredResponse]] = OrderedDict()
        self._items: Final[OrderedDict[str, Any]] = OrderedDict()

    def keep(self, stored: StoredResponse) -> None:
        """Makes a response known by its id."""
        self._stored[stored.response["id"]] = stored
        if len(self._stored) > STORED_MAX:
            self._stored.popitem(last=False)

    def end(self, response: dict[str, Any]) -> None:
        """Puts a response that ran in its last state, unless it was deleted meanwhile."""
        stored = self._stored.get(response["id"])
        if stored is not None:
            for item in response["output"]:
                self._items[item["id"]] = item
            while len(self._items) > STORED_MAX:
                self._items.popitem(last=False)
            conversation = [*stored.conversation, *response["output"]]
            self._stored[response["id"]] = stored._replace(response=response, conversation=conversation)

    def find(self, response_id: str) -> StoredResponse | None:
        """The response, unless it was never stored or is deleted."""
        return self._stored.get(response_id)

    def item(self, item_id: object) -> Any:
        """The item of a stored response; None when there is none."""
        return self._items.get(item_id) if isinstance(item_id, str) else None

    def delete(self, response_id: str) -> bool:
        """Whether there was such a response."""
        stored = self._stored.pop(response_id, None)
        for item in stored.response["output"] if stored is not None else ():
            self._items.pop(item["id"], None)
        return stored is not None
