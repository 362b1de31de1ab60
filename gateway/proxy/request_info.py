"""Facts of a request for its log line, also when it is refused. Never a key, a query or a body."""

from typing import Final

from aiohttp import web

from gateway.access.admission import Principal
from gateway.kit.json_structure import SMALL_BYTES
from pricing.readers.body import read_fields, text_of

_SHOWN_MAX: Final = 200


class RequestInfo:
    """Facts of one request, filled in as they become known."""

    __slots__ = ("endpoint", "is_logged", "model", "principal", "request", "request_id")

    def __init__(self, request: web.BaseRequest) -> None:
        self.request: Final = request
        self.endpoint: str | None = None
        """The catalogue's name of what is called."""
        self.principal: Principal | None = None
        self.model: str | None = None
        """What the request asks for, once its body has been read."""
        self.request_id: str | None = None
        """OpenAI's, once it has answered."""
        self.is_logged = False
        """Whether the call has its line already: a request has one."""


def plain(text: str) -> str:
    """Text of a client's that may stand in an error or a log line: short, printable, ASCII."""
    return "".join(char if " " <= char <= "~" else "?" for char in text[:_SHOWN_MAX])


def model_in(body: bytes) -> str | None:
    """The model named by a request that could not be read otherwise."""
    if len(body) > SMALL_BYTES:
        return None
    model = text_of((read_fields(body) or {}).get("model"))
    return None if model is None else plain(model)
