"""A route: one method and path, who may use it, what it takes, and everything that it may answer. Pure."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from gateway.http.fields import Fields, Nothing
from gateway.kit.errors import ApiError

P = TypeVar("P", bound=Fields)
Q = TypeVar("Q", bound=Fields)
B = TypeVar("B", bound=Fields)
_PARAMETER: Final = re.compile(r"\{(\w+)\}")


class Refusal(NamedTuple):
    """An error that a route may answer with."""

    status: int
    code: str
    when: str


class Result(NamedTuple):
    """What a route answers with a status of success."""

    body: Any
    """The type: a Struct."""
    description: str
    headers: Mapping[str, str] = {}
    """Name and description."""


class Answer(NamedTuple):
    """One answer; its body is of the type that the route declares for this status."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}


class Caller(NamedTuple):
    """Who sends a request."""

    granted: frozenset[str]
    """Permissions of the key."""
    key_id: str
    """Unkey's id of it."""


@dataclass(frozen=True, slots=True)
class RouteCall(Generic[P, Q, B]):
    """One request, as far as its route reads it."""

    path: P
    query: Q
    body: B
    caller: Caller
    headers: Mapping[str, str] = field(repr=False)

    def has(self, permission: str) -> bool:
        """Whether the caller has a permission."""
        return is_granted(self.caller.granted, permission)

    def require(self, permission: str) -> None:
        """Raises ApiError 403 when the caller lacks a permission that only some requests of a route need."""
        require(self.caller.granted, permission)


@dataclass(frozen=True, slots=True)
class Route(Generic[P, Q, B]):
    """`path` names its parameters, `/rooms/{id}/expire`: the fields of `path_fields`, each one segment as it is written
    (it is not percent-decoded). `body` is Nothing where none is taken.
    """

    method: str
    path: str
    name: str
    """The operation's name for generated clients: `create_room`."""
    summary: str
    permission: str | None
    """None: whoever is admitted. `rooms.*` has every permission that begins with `rooms.`."""
    path_fields: type[P]
    query: type[Q]
    body: type[B]
    handle: Callable[[RouteCall[P, Q, B]], Awaitable[Answer]]
    results: Mapping[int, Result]
    refusals: tuple[Refusal, ...] = ()
    """Its own; those of reading a request are known (`all_refusals`)."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers that it reads: name and description."""
    no_body: str = "This request takes no body."
    """The error when one comes all the same."""

    def __post_init__(self) -> None:
        declared = [each.encode_name for each in msgspec.structs.fields(self.path_fields)]
        if sorted(_PARAMETER.findall(self.path)) != sorted(declared):
            raise ValueError(f"{self.path}: {self.path_fields.__name__} has the fields {declared}")
        if self.method in ("GET", "HEAD") and self.body is not Nothing:
            raise ValueError(f"{self.method} {self.path} takes no body")

    @property
    def reads_body(self) -> bool:
        """Whether a body is looked at, be it to refuse one. A GET's is ignored."""
        return self.method != "GET"

    def match(self, segments: list[str]) -> dict[str, str] | None:
        """The parameters of a path, given by its segments; None when it is another path."""
        wanted = self.path.split("/")
        if len(wanted) != len(segments):
            return None
        found = {}
        for pattern, segment in zip(wanted, segments, strict=True):
            if parameter := _PARAMETER.fullmatch(pattern):
                found[parameter[1]] = segment
            elif pattern != segment:
                return None
        return found

    def all_refusals(self) -> list[Refusal]:
        """Its own, and those that its declaration brings along."""
        found = [
            Refusal(400, "unknown_parameter", "a query parameter that this request does not take"),
            Refusal(400, "duplicate_parameter", "a query parameter comes twice"),
            Refusal(400, "invalid_query", "the query cannot be read"),
        ]
        if any(msgspec.structs.fields(each) for each in (self.path_fields, self.query, self.body)):
            found.append(Refusal(400, "invalid_value", "`param` names what is wrong, the message what would be right"))
        if any(each.required for each in (*msgspec.structs.fields(self.query), *msgspec.structs.fields(self.body))):
            found.append(Refusal(400, "missing_field", "`param` names what is missing"))
        if self.permission is not None:
            found.append(Refusal(403, "insufficient_permissions", f"the key lacks {self.permission}"))
        if self.reads_body:
            found.append(Refusal(400, "unknown_field", "the body has a field that is not taken"))
            found.append(Refusal(413, "request_too_large", "the body is too large"))
        if self.reads_body and self.body is not Nothing:
            found.append(Refusal(400, "invalid_json", "the body is not a JSON object, or not strict JSON"))
            found.append(Refusal(400, "request_too_complex", "the body holds too many JSON values"))
        return [*found, *self.refusals]


def is_granted(granted: frozenset[str], permission: str) -> bool:
    """Whether the permission is among these, by itself or by all of its kind (`rooms.*`)."""
    return permission in granted or f"{permission.partition('.')[0]}.*" in granted


def require(granted: frozenset[str], permission: str) -> None:
    """Raises ApiError 403 naming the permission, when it is not among these."""
    if not is_granted(granted, permission):
        raise ApiError(403, "insufficient_permissions", f"This API key lacks the permission {permission!r}.")
