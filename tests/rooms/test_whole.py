"""Rooms as an operator runs them: behind `gateway serve`, with keys from Unkey; and how the API is put together."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock
from uuid import uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from pydantic import SecretStr

from gateway.config.settings import Settings
from gateway.embedded import Embedded
from gateway.http.connections import ClientConnection, ClientConnections
from gateway.http.uploads import Uploads
from gateway.kit.errors import ApiError
from gateway.limits.local_limits import LocalLimits
from gateway.processes.proxy_connections import open_connections
from gateway.processes.rooms_api import open_rooms
from tests.access.admissions import AdmissionFakes, valid
from tests.rooms.rooms_at_work import BOTH, CANARY, OLD
from tests.rooms.test_rotation import spelled
from tests.support.gateway import Stack, stack
from tests.support.patience import ENDS_S

SECRETS = {"notes": CANARY, "candidate": {"email": f"{CANARY}@example.com"}}


def call(stack: Stack, key: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON answer of one request to the public port."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.port}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=ENDS_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def key_with(stack: Stack, *permissions: str) -> str:
    """A key with these permissions."""
    asked = [part for each in permissions for part in ("--permission", each)]
    done = stack.command("keys", "create", "--user", "app@example.com", *asked, "--json")
    assert done.returncode == 0, done.stderr.decode()
    return str(json.loads(done.stdout)["key"])


@pytest.mark.long
def test_rooms_behind_a_gateway(embedded: Embedded, module_database: str, tmp_path: Path) -> None:
    environ = {
        "ROOMS_KEYS": spelled(OLD),
        "ROOMS__EXPIRE_INTERVAL_S": "0.2",
        "FLUSH__STREAM": f"usage-{uuid4().hex}",
    }
    with stack(tmp_path, module_database, embedded.redis_url, **environ) as made:
        made.start()
        writer, reader = key_with(made, "rooms.write"), key_with(made, "rooms.read", "rooms.read_sensitive")
        status, room = call(made, writer, "POST", "/rooms", {"room_name": "interview", "sensitive": SECRETS})
        assert status == 201, room
        path = f"/rooms/{room['id']}"
        assert call(made, reader, "GET", f"{path}?include=sensitive")[1]["sensitive"] == SECRETS
        for key, method, target in (
            (writer, "GET", path),
            (reader, "POST", "/rooms"),
            (made.key, "GET", path),
            (reader, "GET", "/v1/models"),
            (writer, "POST", "/v1/chat/completions"),
        ):
            status, refused = call(made, key, method, target, {} if method == "POST" else None)
            assert (status, refused["error"]["code"]) == (403, "insufficient_permissions")
        made.env["ROOMS_KEYS"] = spelled(BOTH)
        for command in (("rooms", "rotate-key"), ("rooms", "check")):
            done: subprocess.CompletedProcess[bytes] = made.command(*command)
            assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
            assert CANARY.encode() not in done.stdout + done.stderr
        # This gateway has only the old key: it says so, and what it cannot open stays.
        assert call(made, reader, "GET", f"{path}?include=sensitive")[1]["error"]["code"] == "room_not_readable"
        assert call(made, writer, "PATCH", path, {"expires_at": "2026-01-01"})[0] == 200
        deadline = time.monotonic() + ENDS_S
        while (shown := call(made, reader, "GET", path)[1])["state"] != "expired":
            assert time.monotonic() < deadline, shown
            time.sleep(0.05)
        assert shown["has_sensitive"] is False
        outputs = "".join(process.output() for process in made.processes)
        assert "UnknownKey" in outputs
        for secret in (CANARY, writer, reader, spelled(OLD).partition(":")[2]):
            assert secret not in outputs


async def test_rooms_are_answered_only_with_a_key_ring(database_url: str) -> None:
    connection = Mock(spec=ClientConnection, owner=None)
    mocked = make_mocked_request("GET", "/rooms", headers={"Authorization": "Bearer k"}, protocol=connection)
    request = cast(web.BaseRequest, mocked)
    fakes = AdmissionFakes()
    fakes.keys.answer = valid(permissions=["rooms.read"])
    settings = Settings(database_url=SecretStr(database_url), rooms_keys=SecretStr(spelled(BOTH)))
    clients = ClientConnections(settings.connections, Uploads(settings.connections), files=20_000, write_stall_s=60)
    local = LocalLimits(settings.limits, monotonic=time.monotonic)
    async with AsyncExitStack() as stack:
        share = (await open_connections(stack, settings, "proxy-test")).rooms
        off = open_rooms(settings.model_copy(update={"rooms_keys": None}), share, fakes.admission, local, clients)
        with pytest.raises(ApiError) as refused:
            await off(request, "event")
        assert (refused.value.status, refused.value.code) == (503, "rooms_not_configured")
        on = open_rooms(settings, share, fakes.admission, local, clients)
        answer = await on(request, "event")
        assert (answer.status, answer.headers["x-gateway-event-id"]) == (200, "event")
