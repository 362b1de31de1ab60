"""Finds the route of a request, reads what the route declares, and writes its answer. Pure: the HTTP server passes
in how a caller is admitted and how a body is read.

The order is fixed, so that nobody learns more than they may: admitted, path and method known, parameters of the path,
permission, query, and only then the body.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from gateway.http.fields import Fields, Nothing, read_body, read_path, read_query
from gateway.http.route import Answer, Caller, Route, RouteCall, require
from gateway.kit.errors import ApiError


class HttpRequest(Protocol):
    """What is read of a request; aiohttp's is one."""

    @property
    def method(self) -> str:
        """In upper case."""

    @property
    def raw_path(self) -> str:
        """Path and query as they were sent."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in any case."""


R = TypeVar("R", bound=HttpRequest)
AnyRoute = Route[Any, Any, Any]
JSON: Final = {"Content-Type": "application/json", "Cache-Control": "no-store"}


class Reply(NamedTuple):
    """An answer, ready to be sent."""

    status: int
    headers: dict[str, str]
    body: bytes


class Router(Generic[R]):
    """The routes below one path. HEAD is answered as GET; whoever serves HTTP leaves the body out."""

    def __init__(
        self,
        prefix: str,
        routes: Sequence[AnyRoute],
        *,
        admit: Callable[[R], Awaitable[Caller]],
        read_body: Callable[[R, int], Awaitable[bytes]],
        body_bytes_max: int,
        tells_methods: bool = True,
    ) -> None:
        """`tells_methods`: a known path under a method that it does not have is 405 with `Allow`; False, for an API
        that has always answered so, 404 as for an unknown path. Raises ValueError for two routes of one name or place.
        """
        for kind in ([route.name for route in routes], [(route.method, route.path) for route in routes]):
            if len(set(kind)) != len(kind):
                raise ValueError(f"two routes are the same: {kind}")
        self._prefix: Final = prefix
        # A path that is written out goes before one with a parameter in its place.
        self._routes: Final = sorted(routes, key=lambda route: route.path.count("{"))
        self._admit: Final = admit
        self._read_body: Final = read_body
        self._body_bytes_max: Final = body_bytes_max
        self._tells_methods: Final = tells_methods

    async def handle(self, request: R) -> Reply:
        """Answers. Raises ApiError, and what the routes raise."""
        path, _, rest = request.raw_path.partition("?")
        caller = await self._admit(request)
        route, given = self._find(request.method, path)
        parameters = read_path(given, route.path_fields)
        if route.permission is not None:
            require(caller.granted, route.permission)
        query = read_query(rest.partition("#")[0], route.query)
        body = await self._body(request, route)
        answer = await route.handle(RouteCall(parameters, query, body, caller, request.headers))
        return _reply(route, answer)

    def _find(self, method: str, path: str) -> tuple[AnyRoute, dict[str, str]]:
        segments = path.split("/")
        wanted = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        for route in self._routes:
            given = route.match(segments)
            if given is not None and route.method == wanted:
                return route, given
            if given is not None:
                allowed.add(route.method)
        if not allowed or not self._tells_methods:
            message = f"There is no such method and path below {self._prefix}."
            raise ApiError(404, "endpoint_not_supported", message)
        listed = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
        raise ApiError(405, "method_not_allowed", f"This path takes {listed}.", headers={"Allow": listed})

    async def _body(self, request: R, route: AnyRoute) -> Fields:
        if not route.reads_body:
            return Nothing()
        raw = await self._read_body(request, self._body_bytes_max)
        if route.body is not Nothing:
            body: Fields = read_body(raw, route.body)
            return body
        if raw not in (b"", b"{}"):
            raise ApiError(400, "unknown_field", route.no_body)
        return Nothing()


def _reply(route: AnyRoute, answer: Answer) -> Reply:
    """The answer as JSON. One that the route does not declare is a bug: the document would be wrong."""
    result = route.results.get(answer.status)
    if result is None or (isinstance(result.body, type) and not isinstance(answer.body, result.body)):
        raise TypeError(f"{route.name} declares no {answer.status} with {type(answer.body).__name__}")
    if undeclared := set(answer.headers) - set(result.headers):
        raise TypeError(f"{route.name} declares no header {sorted(undeclared)} of {answer.status}")
    return Reply(answer.status, {**JSON, **answer.headers}, msgspec.json.encode(answer.body))
