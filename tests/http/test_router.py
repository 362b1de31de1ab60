"""The router and the OpenAPI document, with a made-up resource: parcels in depots."""

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
import pytest
from msgspec import UNSET, Meta, UnsetType

from gateway.http.fields import Fields, Nothing
from gateway.http.openapi import About, build_document
from gateway.http.route import Answer, Caller, Refusal, Result, Route, RouteCall
from gateway.http.router import AnyRoute, Reply, Router
from gateway.kit.errors import ApiError

SECRET: Final = "CANARY-71b2"
LIMIT: Final = 100


class ParcelPath(Fields, frozen=True, kw_only=True):
    """Which parcel."""

    depot: Annotated[int, Meta(ge=1, le=99, title="The depot")]
    id: UUID


class Search(Fields, frozen=True, kw_only=True):
    """Which parcels."""

    size: Literal["small", "large"] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=50)] = 20
    fragile: bool | UnsetType = UNSET
    sender: Annotated[str, Meta(min_length=1, max_length=5, description="Whose.")]


class Box(msgspec.Struct, forbid_unknown_fields=True):
    """A box."""

    grams: int


class NewParcel(Fields, frozen=True, kw_only=True):
    """A new parcel."""

    name: str
    box: Box | UnsetType = UNSET
    tags: list[str] | None = None
    weight: Annotated[int, Meta(ge=0, extra={"must": "must be its grams"})] | UnsetType = UNSET


class Parcel(msgspec.Struct):
    """A parcel."""

    name: str
    box: Box | None = None


class Request(NamedTuple):
    method: str
    raw_path: str
    headers: Mapping[str, str]


class Parcels:
    """The API, in this process; `read` says how often a body was read."""

    def __init__(self, *, granted: frozenset[str] = frozenset({"parcels.*"}), tells_methods: bool = True) -> None:
        self.granted, self.body, self.read, self.answer = granted, b"", 0, Answer(200, Parcel("p"))
        self.seen: RouteCall[Any, Any, Any] | None = None
        one = "/parcels/{depot}/{id}"
        fine = {200: Result(Parcel, "A parcel.", {"ETag": "Its version."})}
        self.routes: list[AnyRoute] = [
            Route("GET", one, "get", "Get.", "parcels.read", ParcelPath, Nothing, Nothing, self._handle, fine),
            Route("GET", "/parcels", "list", "List.", None, Nothing, Search, Nothing, self._handle, fine),
            Route("PUT", one, "put", "Put.", "parcels.write", ParcelPath, Nothing, NewParcel, self._handle, fine,
                  (Refusal(409, "parcel_sent", "it is on its way"),)),
            Route("DELETE", one, "drop", "Drop.", "parcels.write", ParcelPath, Nothing, Nothing, self._handle, fine),
            Route("GET", "/parcels/1/lost", "lost", "Lost.", None, Nothing, Nothing, Nothing, self._handle, fine),
        ]  # fmt: skip
        self.router: Router[Request] = Router(
            "/parcels",
            self.routes,
            admit=self._admit,
            read_body=self._read_body,
            body_bytes_max=LIMIT,
            tells_methods=tells_methods,
        )

    def call(self, method: str, path: str, body: object = b"") -> Reply:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return asyncio.run(self.router.handle(Request(method, path, {})))

    def refused(self, method: str, path: str, body: object = b"") -> ApiError:
        with pytest.raises(ApiError) as refused:
            self.call(method, path, body)
        assert SECRET not in refused.value.message
        return refused.value

    async def _admit(self, _request: Request) -> Caller:
        return Caller(self.granted, "key_1")

    async def _read_body(self, _request: Request, bytes_max: int) -> bytes:
        self.read += 1
        assert bytes_max == LIMIT
        return self.body

    async def _handle(self, call: RouteCall[Any, Any, Any]) -> Answer:
        self.seen = call
        return self.answer


ID: Final = "3d9d9a3e-0000-4000-8000-000000000001"
ONE: Final = f"/parcels/7/{ID}"


def test_a_route_gets_what_it_declares() -> None:
    api = Parcels()
    api.answer = Answer(200, Parcel("p", Box(5)), {"ETag": '"1"'})
    reply = api.call("PUT", ONE, {"name": "n", "box": {"grams": 3}, "tags": None})
    assert reply.body == b'{"name":"p","box":{"grams":5}}'
    assert reply.headers == {"Content-Type": "application/json", "Cache-Control": "no-store", "ETag": '"1"'}
    assert api.seen is not None
    assert api.seen.path == ParcelPath(depot=7, id=UUID(ID))
    assert api.seen.body == NewParcel(name="n", box=Box(3), tags=None)
    assert SECRET not in repr(
        RouteCall(api.seen.path, api.seen.query, NewParcel(name=SECRET), Caller(frozenset(), "key_1"), {"x": SECRET})
    )
    api.call("GET", "/parcels?sender=a%20b&limit=50&fragile=true&size=large#x")
    assert api.seen.query == Search(sender="a b", limit=50, fragile=True, size="large")
    api.call("GET", "/parcels?sender=a")
    assert api.seen.query == Search(sender="a", limit=20)


def test_head_is_answered_as_get() -> None:
    api = Parcels()
    assert api.call("HEAD", ONE) == api.call("GET", ONE)


def test_a_path_that_is_written_out_goes_before_one_with_a_parameter() -> None:
    api = Parcels(granted=frozenset())
    assert api.call("GET", "/parcels/1/lost").status == 200
    assert api.refused("DELETE", "/parcels/1/lost").param == "id"


def test_unknown_paths_and_methods() -> None:
    api = Parcels()
    for path in ("/parcels/", "/parcels/7", f"{ONE}/", f"{ONE}/x", "//parcels", "/Parcels"):
        refused = api.refused("GET", path)
        assert (refused.status, refused.code) == (404, "endpoint_not_supported")
    refused = api.refused("PATCH", ONE)
    assert (refused.status, refused.code) == (405, "method_not_allowed")
    assert refused.headers == {"Allow": "DELETE, GET, HEAD, PUT"}
    assert api.refused("POST", "/parcels").headers == {"Allow": "GET, HEAD"}
    assert Parcels(tells_methods=False).refused("PATCH", ONE).status == 404


REFUSED: Final[tuple[tuple[str, str, object, str, str | None, str], ...]] = (
    ("GET", f"/parcels/0/{ID}", b"", "invalid_value", "depot",
     "The depot in the path must be a whole number from 1 to 99."),
    ("GET", f"/parcels/1e1/{ID}", b"", "invalid_value", "depot",
     "The depot in the path must be a whole number from 1 to 99."),
    ("GET", f"/parcels/7/{SECRET}", b"", "invalid_value", "id", "'id' in the path must be a UUID."),
    ("GET", "/parcels", b"", "missing_field", "sender", "'sender' is missing."),
    ("GET", "/parcels?sender=123456", b"", "invalid_value", "sender", "'sender' must be text of 1 to 5 characters."),
    ("GET", "/parcels?sender=a&limit=51", b"", "invalid_value", "limit",
     "'limit' must be a whole number from 1 to 50."),
    ("GET", "/parcels?sender=a&limit=1.0", b"", "invalid_value", "limit",
     "'limit' must be a whole number from 1 to 50."),
    ("GET", f"/parcels?sender=a&size={SECRET}", b"", "invalid_value", "size", "'size' must be 'large' or 'small'."),
    ("GET", "/parcels?sender=a&fragile=7", b"", "invalid_value", "fragile", "'fragile' must be true or false."),
    ("GET", "/parcels?sender=a&sender=b", b"", "duplicate_parameter", None,
     "A query parameter is given more than once."),
    ("GET", "/parcels?x=1", b"", "unknown_parameter", "x",
     "Unknown query parameter; known are size, limit, fragile, sender."),
    ("GET", f"{ONE}?x=1", b"", "unknown_parameter", "x", "Unknown query parameter, this request takes none."),
    ("GET", "/parcels?sender=%ff", b"", "invalid_query", None, "The query cannot be read."),
    ("PUT", ONE, b"", "invalid_json", None, "The request body cannot be taken: it is not JSON: line 1, column 1."),
    ("PUT", ONE, [], "invalid_json", None, "The request body must be a JSON object."),
    ("PUT", ONE, b'{"name":"a","name":"b"}', "invalid_json", None,
     "The request body cannot be taken: an object in it has a name twice."),
    ("PUT", ONE, {"name": None}, "missing_field", "name", "'name' is missing."),
    ("PUT", ONE, {"name": 7}, "invalid_value", "name", "'name' must be text."),
    ("PUT", ONE, {"name": "a", SECRET: 1}, "unknown_field", "?", "Unknown field; known are box, name, tags, weight."),
    ("PUT", ONE, {"name": "a", "tags": [1]}, "invalid_value", "tags", "'tags' must be a list of: text or null."),
    ("PUT", ONE, {"name": "a", "box": {"grams": SECRET}}, "invalid_value", "box",
     "'box' must be a JSON object as the OpenAPI document describes it."),
    ("PUT", ONE, {"name": "a", "weight": True}, "invalid_value", "weight", "'weight' must be its grams."),
    ("DELETE", ONE, {"now": 1}, "unknown_field", None, "This request takes no body."),
)  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "code", "param", "message"), REFUSED)
def test_a_refusal_names_the_field_and_what_would_be_right(
    method: str, path: str, body: object, code: str, param: str | None, message: str
) -> None:
    refused = Parcels().refused(method, path, body)
    assert (refused.status, refused.code, refused.param, refused.message) == (400, code, param, message)


@pytest.mark.parametrize("granted", [(), ("parcels.read",), ("rooms.*",), ("*",), ("parcels",)])
def test_the_permission_is_checked_before_anything_of_the_request_is_read(granted: tuple[str, ...]) -> None:
    api = Parcels(granted=frozenset(granted))
    refused = api.refused("PUT", f"{ONE}?x=1", b"not json")
    assert (refused.status, refused.code, api.read) == (403, "insufficient_permissions", 0)
    assert "'parcels.write'" in refused.message
    api.granted = frozenset({"parcels.write"})
    assert api.call("PUT", ONE, {"name": "a"}).status == 200
    assert api.read == 1
    assert api.seen is not None
    with pytest.raises(ApiError, match=r"parcels\.admin"):
        api.seen.require("parcels.admin")


@pytest.mark.parametrize(
    "answer", [Answer(201, Parcel("p")), Answer(200, {"name": "p"}), Answer(200, Parcel("p"), {"Location": "/"})]
)
def test_an_answer_that_is_not_declared_is_a_bug(answer: Answer) -> None:
    api = Parcels()
    api.answer = answer
    with pytest.raises(TypeError, match="get declares no"):
        api.call("GET", ONE)


def test_a_route_that_contradicts_itself_is_refused() -> None:
    handle = Parcels()._handle
    with pytest.raises(ValueError, match="ParcelPath has the fields"):
        Route("GET", "/parcels/{id}", "x", "X.", None, ParcelPath, Nothing, Nothing, handle, {})
    with pytest.raises(ValueError, match="takes no body"):
        Route("GET", "/parcels", "x", "X.", None, Nothing, Nothing, NewParcel, handle, {})
    twice = [Route("GET", "/parcels", name, "X.", None, Nothing, Nothing, Nothing, handle, {}) for name in "ab"]
    with pytest.raises(ValueError, match="two routes are the same"):
        Router("/parcels", twice, admit=Parcels()._admit, read_body=Parcels()._read_body, body_bytes_max=1)


def test_the_document_says_what_the_routes_declare() -> None:
    about = About("Parcels", "1", "Parcels.", (Refusal(401, "invalid_api_key", "the key is unknown"),))
    document = build_document(about, Parcels().routes)
    assert json.loads(json.dumps(document)) == document
    assert set(document["paths"]) == {"/parcels", "/parcels/{depot}/{id}", "/parcels/1/lost"}
    assert set(document["components"]["schemas"]) == {"Error", "ErrorDetail", "Parcel", "NewParcel", "Box"}
    put = document["paths"]["/parcels/{depot}/{id}"]["put"]
    assert (put["operationId"], put["description"]) == ("put", "Needs the permission `parcels.write`.")
    assert put["parameters"] == [
        {"name": "depot", "in": "path", "required": True,
         "schema": {"title": "The depot", "type": "integer", "minimum": 1, "maximum": 99}},
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}},
    ]  # fmt: skip
    assert put["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/NewParcel"}
    assert set(put["responses"]) == {"200", "400", "401", "403", "409", "413"}
    assert set(put["responses"]["200"]["headers"]) == {"ETag"}
    codes = put["responses"]["409"]["content"]["application/json"]["schema"]["allOf"][1]
    assert codes["properties"]["error"]["properties"]["code"]["enum"] == ["parcel_sent"]
    listed = document["paths"]["/parcels"]["get"]
    assert "requestBody" not in listed
    assert [(each["name"], each["required"]) for each in listed["parameters"]] == [
        ("size", False), ("limit", False), ("fragile", False), ("sender", True),
    ]  # fmt: skip
    assert listed["parameters"][1]["schema"] == {"type": "integer", "minimum": 1, "maximum": 50, "default": 20}
    assert listed["parameters"][3]["description"] == "Whose."
