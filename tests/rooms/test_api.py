"""The rooms API: made, read, changed, listed, expired; who may what; what is refused; what is never shown."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from gateway.config.settings import ConnectionSettings, LimitSettings, Settings
from gateway.rooms.expire import Expiry
from gateway.rooms.store import Rooms
from gateway.stores.postgres import Pool
from tests.rooms.rooms_at_work import CANARY, NEW, NOW, RoomsApi, open_rooms_api

SECRETS = {"candidate": {"name": CANARY, "email": f"{CANARY}@example.com"}, "notes": [CANARY], "token": CANARY}


@pytest.fixture
async def api(pool: Pool) -> AsyncIterator[RoomsApi]:
    async with open_rooms_api(pool) as made:
        yield made


async def whole_table(pool: Pool) -> str:
    rows = await pool.fetch("select rooms::text as row, encode(sealed, 'escape') as sealed from rooms")
    return "".join(f"{row['row']}{row['sealed']}" for row in rows)


async def sensitive(api: RoomsApi, room_id: str) -> Any:
    return (await api.call("GET", f"/rooms/{room_id}?include=sensitive")).body["sensitive"]


async def test_the_life_of_a_room(api: RoomsApi, capfd: pytest.CaptureFixture[str]) -> None:
    user = await api.user("ann@example.com")
    meeting = await api.meeting(user)
    made = await api.call(
        "POST",
        "/rooms",
        {
            "room_name": "interview-7",
            "user_id": user.upper(),
            "meeting_id": meeting,
            "data": {"step": 1, "plan": {"a": 1, "b": 2}},
            "sensitive": SECRETS,
            "started_at": "2026-11-24T10:00:00+01:00",
        },
    )
    assert made.status == 201
    room = made.body
    assert made.headers["Location"] == f"/rooms/{room['id']}"
    assert made.headers["Cache-Control"] == "no-store"
    assert made.headers["x-gateway-event-id"]
    assert (room["state"], room["version"], room["has_sensitive"], room["user_id"]) == ("created", 1, True, user)
    assert room["started_at"] == "2026-11-24T09:00:00Z"
    for shown in (made, await api.call("GET", f"/rooms/{room['id']}"), await api.call("GET", "/rooms")):
        assert CANARY not in json.dumps(shown.body)
    assert await sensitive(api, room["id"]) == SECRETS

    change = {
        "state": "running",
        "data": {"step": None, "plan": {"b": 3}},
        "sensitive": {"token": None, "notes": ["x"]},
    }
    changed = await api.call("PATCH", f"/rooms/{room['id']}", change)
    assert (changed.status, changed.headers["ETag"]) == (200, '"2"')
    assert (changed.body["data"], changed.body["state"]) == ({"plan": {"a": 1, "b": 3}}, "running")
    assert await sensitive(api, room["id"]) == {"candidate": SECRETS["candidate"], "notes": ["x"]}
    stored = await whole_table(api.pool)
    assert room["id"] in stored
    assert CANARY not in stored

    expired = await api.call("POST", f"/rooms/{room['id']}/expire")
    assert (expired.body["state"], expired.body["has_sensitive"]) == ("expired", False)
    assert expired.body["data"] == {"plan": {"a": 1, "b": 3}}
    assert expired.body["expired_at"] == "2026-11-24T12:00:00Z"
    assert await sensitive(api, room["id"]) is None
    again = await api.call("POST", f"/rooms/{room['id']}/expire", {})
    assert again.body == expired.body
    late = await api.call("PATCH", f"/rooms/{room['id']}", {"state": "running"})
    assert (late.status, late.code) == (409, "room_expired")
    assert CANARY not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("permissions", "may"),
    [
        (["rooms.*"], {"read", "sensitive", "write"}),
        (["rooms.read"], {"read"}),
        (["rooms.read", "rooms.read_sensitive"], {"read", "sensitive"}),
        (["rooms.read_sensitive"], set()),
        (["rooms.write"], {"write"}),
        (["openai.*", "usage.read", "room.*", "rooms"], set()),
        ([], set()),
    ],
)
async def test_who_may_what(api: RoomsApi, permissions: list[str], may: set[str]) -> None:
    room = await api.made(sensitive=SECRETS)
    path = f"/rooms/{room['id']}"
    api.permissions = permissions
    asked = [
        ("read", "rooms.read", await api.call("GET", path)),
        ("read", "rooms.read", await api.call("GET", "/rooms")),
        ("sensitive", "", await api.call("GET", f"{path}?include=sensitive")),
        ("write", "rooms.write", await api.call("PATCH", path, {"state": "x"})),
        ("write", "rooms.write", await api.call("POST", "/rooms", {"room_name": "r"})),
        ("write", "rooms.write", await api.call("POST", f"{path}/expire")),
    ]
    for needs, permission, answer in asked:
        if needs in may:
            assert answer.status in (200, 201), answer
        else:
            assert (answer.status, answer.code) == (403, "insufficient_permissions")
            lacking = permission or ("rooms.read_sensitive" if "read" in may else "rooms.read")
            assert f"'{lacking}'" in answer.body["error"]["message"]
            assert CANARY not in json.dumps(answer.body)


async def test_who_has_read_what_is_sealed_is_recorded_without_what_it_was(api: RoomsApi) -> None:
    room, empty = await api.made(sensitive=SECRETS), await api.made()
    before = await api.pool.fetchval("select count(*) from admin_events")
    await api.call("GET", f"/rooms/{room['id']}")
    await api.call("GET", f"/rooms/{empty['id']}?include=sensitive")  # nothing is sealed in it
    assert await api.pool.fetchval("select count(*) from admin_events") == before
    assert await sensitive(api, room["id"]) == SECRETS
    (row,) = await api.pool.fetch("select * from admin_events where subject_id = $1", room["id"])
    assert (row["actor_kind"], row["actor"]) == ("key", "uk_1")
    assert (row["subject"], row["verb"], row["phase"]) == ("room", "read_sensitive", "done")
    assert CANARY not in str(dict(row))
    # What cannot be recorded is not shown.
    await api.pool.execute("alter table admin_events rename to gone")
    refused = await api.call("GET", f"/rooms/{room['id']}?include=sensitive")
    assert (refused.status, CANARY in json.dumps(refused.body)) == (503, False)


async def test_who_may_only_write_is_shown_nothing_of_a_room(api: RoomsApi) -> None:
    room = await api.made(data={"step": CANARY}, sensitive=SECRETS)
    path = f"/rooms/{room['id']}"
    api.permissions = ["rooms.write"]
    changed = await api.call("PATCH", path, {"state": "x"})
    assert (changed.status, changed.body) == (200, {"object": "room", "id": room["id"], "version": 2})
    expired = await api.call("POST", f"{path}/expire")
    assert (expired.status, expired.body) == (200, {"object": "room", "id": room["id"], "version": 3})
    made = await api.call("POST", "/rooms", {"room_name": "r", "data": {"step": CANARY}})
    assert (made.status, sorted(made.body)) == (201, ["id", "object", "version"])
    api.permissions = ["rooms.write", "rooms.read"]
    assert (await api.call("PATCH", f"/rooms/{made.body['id']}", {"state": "y"})).body["data"] == {"step": CANARY}


async def test_without_a_key_nothing(api: RoomsApi) -> None:
    answer = await api.call("GET", "/rooms", Authorization="Basic x")
    assert (answer.status, answer.code) == (401, "invalid_api_key")


ID = "00000000-0000-7000-8000-0000000000ff"


REFUSED: tuple[tuple[str, str, object, int, str, str | None], ...] = (
    ("POST", "/rooms", b"", 400, "invalid_json", None),
    ("POST", "/rooms", b"[]", 400, "invalid_json", None),
    ("POST", "/rooms", b'{"room_name": "a", "room_name": "b"}', 400, "invalid_json", None),
    ("POST", "/rooms", {"room_name": "a", "notes": "x"}, 400, "unknown_field", "notes"),
    ("POST", "/rooms", {}, 400, "missing_field", "room_name"),
    ("POST", "/rooms", {"room_name": ""}, 400, "invalid_value", "room_name"),
    ("POST", "/rooms", {"room_name": "a\nb"}, 400, "invalid_value", "room_name"),
    ("POST", "/rooms", {"room_name": 1}, 400, "invalid_value", "room_name"),
    ("POST", "/rooms", {"room_name": "a", "state": "expired"}, 400, "invalid_value", "state"),
    ("POST", "/rooms", {"room_name": "a", "user_id": "x"}, 400, "invalid_value", "user_id"),
    ("POST", "/rooms", {"room_name": "a", "user_id": ID}, 400, "invalid_value", "user_id"),
    ("POST", "/rooms", {"room_name": "a", "meeting_id": ID}, 400, "invalid_value", "meeting_id"),
    ("POST", "/rooms", {"room_name": "a", "id": 7}, 400, "invalid_value", "id"),
    ("POST", "/rooms", {"room_name": "a", "expires_at": "soon"}, 400, "invalid_value", "expires_at"),
    ("POST", "/rooms", {"room_name": "a", "started_at": 1764000000}, 400, "invalid_value", "started_at"),
    ("POST", "/rooms", {"room_name": "a", "data": []}, 400, "invalid_value", "data"),
    ("POST", "/rooms", {"room_name": "a", "sensitive": "x"}, 400, "invalid_value", "sensitive"),
    ("POST", "/rooms", {"room_name": "a", "data": {"x": "\0"}}, 400, "invalid_json", None),
    ("POST", "/rooms?a=1", {"room_name": "a"}, 400, "unknown_parameter", "a"),
    ("POST", "/rooms", b" " * (1024 * 1024 + 1), 413, "request_too_large", None),
    ("GET", "/rooms/7", None, 400, "invalid_value", "id"),
    ("GET", f"/rooms/{ID}", None, 404, "room_not_found", None),
    ("GET", f"/rooms/{ID}?include=all", None, 400, "invalid_value", "include"),
    ("GET", "/rooms?limit=0", None, 400, "invalid_value", "limit"),
    ("GET", "/rooms?limit=101", None, 400, "invalid_value", "limit"),
    ("GET", "/rooms?limit=1&limit=2", None, 400, "duplicate_parameter", None),
    ("GET", "/rooms?user_id=x", None, 400, "invalid_value", "user_id"),
    ("GET", f"/rooms?after={ID}", None, 400, "invalid_value", "after"),
    ("GET", "/rooms?room_name=%ff", None, 400, "invalid_query", None),
    ("PATCH", f"/rooms/{ID}", {"state": "x"}, 404, "room_not_found", None),
    ("PATCH", f"/rooms/{ID}", {}, 400, "missing_field", None),
    ("PATCH", f"/rooms/{ID}", {"version": 1}, 400, "missing_field", None),
    ("PATCH", f"/rooms/{ID}", {"version": True, "state": "x"}, 400, "invalid_value", "version"),
    ("PATCH", f"/rooms/{ID}", {"data": None}, 400, "invalid_value", "data"),
    ("PATCH", f"/rooms/{ID}", {"room_name": None}, 400, "invalid_value", "room_name"),
    ("POST", f"/rooms/{ID}/expire", None, 404, "room_not_found", None),
    ("POST", f"/rooms/{ID}/expire", {"now": True}, 400, "unknown_field", None),
    ("DELETE", f"/rooms/{ID}", None, 404, "endpoint_not_supported", None),
    ("GET", f"/rooms/{ID}/x", None, 404, "endpoint_not_supported", None),
    ("GET", "/rooms/", None, 400, "invalid_value", "id"),
)
"""Method, path, body; status, code and field of the refusal."""


async def test_what_is_refused(api: RoomsApi) -> None:
    for method, path, body, status, code, param in REFUSED:
        answer = await api.call(method, path, body)
        given = (method, path, str(body)[:80])
        assert (answer.status, answer.code, answer.body["error"]["param"]) == (status, code, param), given
        assert answer.headers["Cache-Control"] == "no-store"


async def test_a_meeting_must_be_its_users(api: RoomsApi) -> None:
    ann, bob = await api.user("ann@example.com"), await api.user("bob@example.com")
    meeting = await api.meeting(ann)
    wrong = await api.call("POST", "/rooms", {"room_name": "a", "user_id": bob, "meeting_id": meeting})
    assert (wrong.status, wrong.body["error"]["param"]) == (400, "meeting_id")
    room = await api.made(meeting_id=meeting)
    wrong = await api.call("PATCH", f"/rooms/{room['id']}", {"user_id": bob})
    assert (wrong.status, wrong.body["error"]["param"]) == (400, "meeting_id")
    right = await api.call("PATCH", f"/rooms/{room['id']}", {"user_id": ann})
    assert (right.body["user_id"], right.body["meeting_id"]) == (ann, meeting)
    off = await api.call("PATCH", f"/rooms/{room['id']}", {"meeting_id": None, "user_id": bob})
    assert (off.body["user_id"], off.body["meeting_id"]) == (bob, None)


async def test_an_id_of_the_callers_own_makes_a_repeat_harmless(api: RoomsApi) -> None:
    room_id = str(uuid4())
    assert (await api.made(id=room_id))["id"] == room_id
    again = await api.call("POST", "/rooms", {"room_name": "other", "id": room_id})
    assert (again.status, again.code) == (409, "room_exists")
    assert (await api.call("GET", f"/rooms/{room_id.upper()}")).body["room_name"] == "interview"


async def test_of_two_writers_one_hears_of_the_other(api: RoomsApi) -> None:
    room = await api.made(sensitive={"n": 0})
    path = f"/rooms/{room['id']}"
    assert (await api.call("PATCH", path, {"state": "a"}, **{"If-Match": '"1"'})).status == 200
    for late in (
        await api.call("PATCH", path, {"state": "b"}, **{"If-Match": '"1"'}),
        await api.call("PATCH", path, {"state": "b", "version": 1}),
    ):
        assert (late.status, late.code) == (409, "version_conflict")
    both = await api.call("PATCH", path, {"state": "b", "version": 2}, **{"If-Match": '"1"'})
    assert (both.status, both.body["error"]["param"]) == (400, "version")
    # Who names no version is merged on top of whatever there is, and nobody's field is lost.
    done = await asyncio.gather(*(api.call("PATCH", path, {"sensitive": {f"f{n}": n}}) for n in range(12)))
    assert [answer.status for answer in done] == [200] * 12
    assert await sensitive(api, room["id"]) == {"n": 0, **{f"f{n}": n for n in range(12)}}


async def test_null_clears_what_is_sealed(api: RoomsApi) -> None:
    room = await api.made(sensitive=SECRETS)
    cleared = await api.call("PATCH", f"/rooms/{room['id']}", {"sensitive": None})
    assert (cleared.body["has_sensitive"], await sensitive(api, room["id"])) == (False, None)
    assert (await api.call("PATCH", f"/rooms/{room['id']}", {"sensitive": {"a": 1}})).body["has_sensitive"]
    emptied = await api.call("PATCH", f"/rooms/{room['id']}", {"sensitive": {"a": None}})
    assert emptied.body["has_sensitive"] is False


async def test_lists_are_paged_newest_first(api: RoomsApi) -> None:
    user = await api.user("ann@example.com")
    ids = [(await api.made(room_name=f"r{n % 2}", user_id=user if n < 3 else None))["id"] for n in range(5)]
    pages, after = [], ""
    while True:
        page = (await api.call("GET", f"/rooms?limit=2{after}")).body
        pages.append([room["id"] for room in page["data"]])
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert pages == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]
    found = (await api.call("GET", f"/rooms?room_name=r0&user_id={user}")).body["data"]
    assert [room["id"] for room in found] == [ids[2], ids[0]]
    assert (await api.call("GET", "/rooms?room_name=none")).body["data"] == []


async def test_a_room_that_does_not_open_is_reported_and_never_overwritten(
    api: RoomsApi, pool: Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    room, other = await api.made(sensitive=SECRETS), await api.made(sensitive={"a": 1})
    path = f"/rooms/{room['id']}"
    await pool.execute(
        "update rooms set sealed = (select sealed from rooms where id = $1) where id = $2", other["id"], room["id"]
    )
    stored = await pool.fetchval("select sealed from rooms where id = $1", room["id"])
    for answer in (
        await api.call("GET", f"{path}?include=sensitive"),
        await api.call("PATCH", path, {"sensitive": {"a": 2}}),
    ):
        assert (answer.status, answer.code) == (500, "room_not_readable")
    assert (await api.call("PATCH", path, {"state": "still"})).status == 200
    assert await pool.fetchval("select sealed from rooms where id = $1", room["id"]) == stored
    said = "".join(capfd.readouterr())
    assert room["id"] in said
    assert "Tampered" in said
    async with open_rooms_api(pool, NEW) as newer:
        await pool.execute("update rooms set sealed_key_id = 'old' where id = $1", other["id"])
        answer = await newer.call("GET", f"/rooms/{other['id']}?include=sensitive")
        assert answer.code == "room_not_readable"
        assert "UnknownKey" in "".join(capfd.readouterr())


async def test_a_merge_may_not_outgrow_the_bounds(api: RoomsApi) -> None:
    room = await api.made(sensitive={"a": "x" * 600_000})
    answer = await api.call("PATCH", f"/rooms/{room['id']}", {"sensitive": {"b": "x" * 600_000}})
    assert (answer.status, answer.code) == (413, "room_too_large")
    assert list(await sensitive(api, room["id"])) == ["a"]


async def test_rooms_expire_by_themselves_once_their_time_is_over(api: RoomsApi, pool: Pool) -> None:
    due = await api.made(sensitive=SECRETS, expires_at="2026-11-24T12:00:00Z")
    later = await api.made(sensitive=SECRETS, expires_at="2026-11-24T12:00:01Z")
    never = await api.made(sensitive=SECRETS)
    passes = await asyncio.gather(*(Expiry(Rooms(pool), now=lambda: NOW).step_once() for _ in range(3)))
    assert sum(passes) == 1
    states = [(await api.call("GET", f"/rooms/{room['id']}")).body["state"] for room in (due, later, never)]
    assert states == ["expired", "created", "created"]
    assert await Expiry(Rooms(pool), now=lambda: NOW + timedelta(seconds=1)).step_once() == 1
    assert await sensitive(api, due["id"]) is None
    assert await sensitive(api, never["id"]) == SECRETS


async def test_the_database_itself_keeps_an_expired_room_empty(api: RoomsApi, pool: Pool) -> None:
    room = await api.made()
    await api.call("POST", f"/rooms/{room['id']}/expire")
    with pytest.raises(Exception, match="rooms_expired_is_erased"):
        await pool.execute("update rooms set sealed = 'x', sealed_key_id = 'k' where id = $1", room["id"])


async def test_calls_count_in_the_limits_of_their_key(pool: Pool) -> None:
    limits = LimitSettings(proxy_requests=2, free_requests=1)
    async with open_rooms_api(pool, settings=Settings(limits=limits)) as rooms:
        assert [(await rooms.call("GET", "/rooms")).status for _ in range(2)] == [200, 200]
        refused = await rooms.call("GET", "/rooms")
        assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
        assert refused.headers["Cache-Control"] == "no-store"


async def test_connections_and_bodies_count_for_their_key(pool: Pool) -> None:
    connections = ConnectionSettings(per_key_max=1, bodies_bytes_max=1024 * 1024)
    async with open_rooms_api(pool, settings=Settings(connections=connections)) as rooms:
        assert (await rooms.call("GET", "/rooms")).status == 200
        await rooms.made(data={"text": "x" * 400_000})
        refused = await rooms.call("POST", "/rooms", {"room_name": "interview", "data": {"text": "x" * 600_000}})
        assert (refused.status, refused.code) == (503, "too_many_uploads")  # half of all of them is for one key
        headers = {"Authorization": "Bearer krooms.*"}
        async with aiohttp.request("GET", f"{rooms.url}/rooms", headers=headers) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (429, "too_many_connections")
