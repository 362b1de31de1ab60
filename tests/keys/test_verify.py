"""Asking Unkey over HTTP: whole answers however they arrive, and DependencyDown for whatever is not an answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.keys.verify import Keys
from gateway.kit.errors import DependencyDown
from tests.support.servers import free_port

VALID = b'{"meta":{"requestId":"r"},"data":{"valid":true,"code":"VALID","keyId":"k1","identity":{"externalId":"u1"}}}'


class Unkey:
    """Answers as told, in pieces."""

    def __init__(self) -> None:
        self.status, self.pieces, self.wait_s = 200, [VALID], 0.0
        self.bodies: list[Any] = []
        self.headers: dict[str, str] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.headers = dict(request.headers)
        await asyncio.sleep(self.wait_s)
        response = web.StreamResponse(status=self.status, headers={"Location": "/elsewhere"})
        await response.prepare(request)
        for piece in self.pieces:
            await response.write(piece)
            await asyncio.sleep(0.01)
        return response


@pytest.fixture
async def asking(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Keys, Unkey]]:
    unkey, port = Unkey(), free_port()
    app = web.Application()
    app.router.add_post("/v2/keys.verifyKey", unkey.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    async with aiohttp.ClientSession() as session:
        yield Keys(session, f"http://127.0.0.1:{port}/", "root", timeout_s=getattr(request, "param", 60.0)), unkey
    await runner.cleanup()


async def test_an_answer_in_pieces_is_whole(asking: tuple[Keys, Unkey]) -> None:
    keys, unkey = asking
    unkey.pieces = [VALID[:7], VALID[7:50], VALID[50:]]
    verdict = await keys.verify("key")
    assert (verdict.valid, verdict.code, verdict.key_id) == (True, "VALID", "k1")
    assert verdict.identity is not None
    assert verdict.identity.external_id == "u1"
    assert unkey.bodies == [{"key": "key", "credits": {"cost": 0}}]
    assert unkey.headers["Authorization"] == "Bearer root"


async def test_tags_go_along(asking: tuple[Keys, Unkey]) -> None:
    keys, unkey = asking
    await keys.verify("key", ["endpoint:chat", "model:gpt-5.1"])
    assert unkey.bodies == [{"key": "key", "credits": {"cost": 0}, "tags": ["endpoint:chat", "model:gpt-5.1"]}]


@pytest.mark.parametrize("status", [302, 401, 403, 412, 500, 503])
async def test_a_status_is_never_about_the_customer_s_key(asking: tuple[Keys, Unkey], status: int) -> None:
    keys, unkey = asking
    unkey.status = status
    with pytest.raises(DependencyDown, match=f"HTTP {status}"):
        await keys.verify("key")


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}", b"null", b"<html>", VALID[:-5], VALID.replace(b"true", b'"true"'), VALID.replace(b"true", b"1")],
)
async def test_what_is_no_answer(asking: tuple[Keys, Unkey], answer: bytes) -> None:
    keys, unkey = asking
    unkey.pieces = [answer]
    with pytest.raises(DependencyDown, match="could not be read") as caught:
        await keys.verify("secret-key")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("asking", [0.5], indirect=True)
async def test_a_slow_unkey_is_away(asking: tuple[Keys, Unkey]) -> None:
    keys, unkey = asking
    unkey.wait_s = 600
    with pytest.raises(DependencyDown, match="unkey"):
        await keys.verify("key")
