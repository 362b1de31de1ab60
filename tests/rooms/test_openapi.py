"""The OpenAPI document of the rooms API: its form, and that every answer is one that it names."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import aiohttp
import pytest

from gateway.stores.postgres import Pool
from tests.rooms.rooms_at_work import Answer, RoomsApi, open_rooms_api
from tests.rooms.test_api import REFUSED

PREFIX: Final = "#/components/schemas/"
METHODS: Final = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


@pytest.fixture
async def api(pool: Pool) -> AsyncIterator[RoomsApi]:
    async with open_rooms_api(pool) as made:
        yield made


async def document_of(api: RoomsApi) -> dict[str, Any]:
    answer = await api.call("GET", "/rooms/openapi.json")
    assert answer.status == 200
    return answer.body


def operation_of(document: dict[str, Any], method: str, target: str) -> tuple[str, dict[str, Any]] | None:
    """The path of the document that this request goes to, and its operation."""
    path = target.partition("?")[0]
    for template in sorted(document["paths"], key=lambda each: each.count("{")):
        pattern = re.sub(r"\\{\w+\\}", "[^/]*", re.escape(template))
        operation = document["paths"][template].get(method.lower())
        if operation and re.fullmatch(pattern, path):
            return template, operation
    return None


def faults(schema: dict[str, Any], value: Any, document: dict[str, Any], at: str = "$") -> Iterator[str]:
    """Where the value is not what the schema says: the part of JSON Schema that the document uses."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(PREFIX)
        yield from faults(document["components"]["schemas"][name], value, document, at)
    for part in schema.get("allOf", ()):
        yield from faults(part, value, document, at)
    if "anyOf" in schema and all(list(faults(part, value, document, at)) for part in schema["anyOf"]):
        yield f"{at}: none of anyOf"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is not in {schema['enum']}"
    kinds: dict[str, type] = {
        "object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None),
    }  # fmt: skip
    if "type" in schema and type(value) is not kinds[schema["type"]]:
        yield f"{at}: no {schema['type']}"
    elif isinstance(value, dict):
        yield from (f"{at}: lacks {name}" for name in schema.get("required", ()) if name not in value)
        known = schema.get("properties", {})
        if schema.get("title"):  # a Struct: nothing may be in it that the document does not name
            yield from (f"{at}: {name} is unknown" for name in value if name not in known)
        for name in value.keys() & known.keys():
            yield from faults(known[name], value[name], document, f"{at}.{name}")
    elif isinstance(value, list):
        for position, each in enumerate(value):
            yield from faults(schema["items"], each, document, f"{at}[{position}]")


def check(document: dict[str, Any], method: str, target: str, answer: Answer) -> tuple[str, str, int] | None:
    """Asserts that the document names this answer; which response it is (None: the request goes to no operation)."""
    found = operation_of(document, method, target)
    if found is None:
        assert (answer.status, answer.code) == (404, "endpoint_not_supported")
        return None
    template, operation = found
    assert str(answer.status) in operation["responses"], (method, target, answer.status)
    response = operation["responses"][str(answer.status)]
    schema = response["content"]["application/json"]["schema"]
    assert list(faults(schema, answer.body, document)) == [], (method, target)
    assert answer.headers.keys() >= set(response.get("headers", ()))
    return method, template, answer.status


async def test_the_document_is_whole(api: RoomsApi) -> None:
    """Of OpenAPI 3.1: fields that are needed, names that may come once, and references that lead somewhere."""
    document = await document_of(api)
    assert document["openapi"].startswith("3.1.")
    assert document["info"].keys() >= {"title", "version"}
    names = []
    for path, operations in document["paths"].items():
        assert operations.keys() <= METHODS
        for operation in operations.values():
            names.append(operation["operationId"])
            in_path = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path))
            assert all(each["required"] for each in operation.get("parameters", ()) if each["in"] == "path")
            assert any(status.startswith("2") for status in operation["responses"])
            assert all(response["description"] for response in operation["responses"].values())
    assert len(set(names)) == len(names) == 6
    schemes = document["components"]["securitySchemes"]
    assert all(name in schemes for each in document["security"] for name in each)
    references = set(re.findall(r"'\$ref': '([^']+)'", repr(document)))
    assert references == {PREFIX + name for name in document["components"]["schemas"]}


async def test_any_key_gets_the_document_and_nobody_without_one(api: RoomsApi) -> None:
    api.permissions = []
    assert (await document_of(api))["info"]["title"] == "Rooms"
    assert (await api.call("GET", "/rooms/openapi.json", Authorization="Basic x")).status == 401
    assert (await api.call("GET", "/rooms/openapi.json?x=1")).code == "unknown_parameter"


async def test_every_answer_is_one_that_the_document_names(api: RoomsApi) -> None:
    document = await document_of(api)
    seen = {check(document, "GET", "/rooms/openapi.json", await api.call("GET", "/rooms/openapi.json"))}
    user = await api.user("ann@example.com")

    async def call(method: str, path: str, body: object = None, **headers: str) -> dict[str, Any]:
        answer = await api.call(method, path, body, **headers)
        seen.add(check(document, method, path, answer))
        return answer.body

    full = {
        "room_name": "r", "user_id": user, "meeting_id": await api.meeting(user), "data": {"a": [1]},
        "sensitive": {"b": 1}, "started_at": "2026-11-24T10:00:00Z", "expires_at": "2027-01-01",
    }  # fmt: skip
    room = await call("POST", "/rooms", full)
    one = f"/rooms/{room['id']}"
    await call("POST", "/rooms", {"room_name": "r", "id": room["id"]})
    await call("POST", "/rooms", {"room_name": "r", "data": {"a": "x" * (1024 * 1024 - 40)}})
    for path in ("/rooms/openapi.json?x=1", "/rooms?room_name=none", "/rooms?limit=1", one, f"{one}?include=sensitive"):
        await call("GET", path)
    await call("PATCH", one, {"state": "x"})
    await call("PATCH", one, {"state": "x"}, **{"If-Match": '"1"'})
    await call("PATCH", one, {"data": {"b": "x" * (1024 * 1024 - 40)}})
    for method, path, body, _, _, _ in REFUSED:
        await call(method, path, body)
    await api.pool.execute("update rooms set sealed_key_id = 'gone' where id = $1", room["id"])
    await call("GET", f"{one}?include=sensitive")
    await call("PATCH", one, {"sensitive": {"a": 1}})
    await call("POST", f"{one}/expire")
    await call("PATCH", one, {"state": "x"})
    api.permissions = []
    for method, path in (
        ("POST", "/rooms"),
        ("GET", "/rooms"),
        ("GET", one),
        ("PATCH", one),
        ("POST", f"{one}/expire"),
    ):
        await call(method, path)
    # Every success that the document names was seen, and every error that is of rooms and not of keys.
    named = {
        (method.upper(), path, int(status))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
        if int(status) in (200, 201, 400, 404, 409)
    }
    assert named - seen == set()


def test_a_wrong_answer_would_be_noticed() -> None:
    document = {
        "components": {"schemas": {"T": {"title": "T", "type": "object", "properties": {"n": {"type": "integer"}}}}}
    }
    schema = {"$ref": f"{PREFIX}T"}
    assert list(faults(schema, {"n": 1}, document)) == []
    assert list(faults(schema, {"n": True}, document)) == ["$.n: no integer"]
    assert list(faults(schema, {"m": 1}, document)) == ["$: m is unknown"]
    assert list(faults({"type": "object", "required": ["n"]}, {}, document)) == ["$: lacks n"]
    assert list(faults({"anyOf": [{"type": "null"}, {"enum": ["a"]}]}, "b", document)) == ["$: none of anyOf"]


async def test_head_is_answered_without_a_body(api: RoomsApi) -> None:
    await api.made()
    async with (
        aiohttp.ClientSession() as session,
        session.head(f"{api.url}/rooms", headers={"Authorization": "Bearer k"}) as got,
    ):
        assert (got.status, await got.read()) == (200, b"")
        assert int(got.headers["Content-Length"]) > 0
