"""New secrets in a running gateway: the next call uses them, calls that run go on, a mistake changes nothing."""

import asyncio
import base64
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web

from gateway.billing.stripe import Billing
from gateway.keys.verify import Keys
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.openai.upstream import Upstream
from gateway.sandbox import credentials
from tests.meetings.test_webhooks import signed
from tests.openai.test_upstream import OK, Server
from tests.support.gateway import Process, Stack
from tests.support.stand_ins import Clock, control, sandbox_at
from tests.support.whole_gateway import DAILY_SECRET, row_of

ENDS_S: Final = 120.0
NEW_SECRET: Final = base64.b64encode(b"another webhook secret").decode()
ANSWER: Final = {
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9},
}
BODY: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


class OpenAI:
    """Answers calls, and keeps with which credential each was made."""

    def __init__(self) -> None:
        self.credentials: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.credentials.append(request.headers["Authorization"])
        await request.read()
        await self.go_on.wait()
        return web.json_response(ANSWER | {"id": f"chatcmpl-{uuid4().hex}"})

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[int]:
        runner = web.ServerRunner(web.Server(self.answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield runner.addresses[0][1]
        finally:
            self.go_on.set()
            await runner.cleanup()


class Rotating:
    """A gateway whose secrets are in files."""

    def __init__(self, stack: Stack, folder: Path, openai_port: int) -> None:
        self.stack = stack
        self.folder = folder
        stack.env["OPENAI_BASE_URL"] = f"http://127.0.0.1:{openai_port}/v1"
        for name, value in (("OPENAI_API_KEY", "sk-one"), ("DAILY_WEBHOOK_SECRET", DAILY_SECRET)):
            stack.env.pop(name, None)
            stack.env[f"{name}_FILE"] = str(folder / name)
            self.write(name, value)
        self.serve: Process = stack.run("serve", "--no-background")

    def write(self, name: str, value: str, mode: int = 0o600) -> None:
        """As secret managers do: a new file in place of the old one."""
        fresh = self.folder / f"{name}.new"
        fresh.write_text(f"{value}\n")
        fresh.chmod(mode)
        fresh.replace(self.folder / name)

    async def reload(self, *events: str) -> list[dict[str, Any]]:
        """SIGHUP; the lines of the log since then, once each of these has been said."""
        before = self.serve.printed_bytes()
        self.serve.popen.send_signal(signal.SIGHUP)
        async with asyncio.timeout(ENDS_S):
            while True:
                text = self.serve.output(before)
                lines = [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]
                said = [line["event"] for line in lines]
                if all(said.count(event) >= events.count(event) for event in events):
                    return lines
                await asyncio.sleep(0.02)

    async def call(self, session: aiohttp.ClientSession) -> tuple[int, str]:
        """One chat completion: the status and the event's id."""
        headers = {"Authorization": f"Bearer {self.stack.key}"}
        async with session.post(f"{self.stack.base_url}/chat/completions", json=BODY, headers=headers) as response:
            await response.read()
            return response.status, response.headers["x-gateway-event-id"]

    async def webhook(self, session: aiohttp.ClientSession, secret: str) -> int:
        """The answer to a webhook that is signed with this."""
        body = json.dumps({"version": "1.0.0", "type": "rotation", "id": "evt_rotation", "payload": {}}).encode()
        url, headers = f"http://127.0.0.1:{self.stack.port}/webhooks/daily", signed(body, secret=secret)
        async with session.post(url, data=body, headers=headers) as response:
            return response.status


@pytest.mark.long
async def test_secrets_change_under_calls(beside_running: Stack, tmp_path: Path) -> None:
    openai, taken = OpenAI(), ("new secrets in use",) * 2  # proxy and keeper
    async with openai.listen() as port, aiohttp.ClientSession() as session:
        gateway = Rotating(beside_running, tmp_path, port)
        await asyncio.to_thread(gateway.serve.wait_for, "serving http")
        first = await gateway.call(session)
        assert openai.credentials == ["Bearer sk-one"]
        # Calls that run while the key changes.
        openai.go_on.clear()
        running = [asyncio.create_task(gateway.call(session)) for _ in range(5)]
        async with asyncio.timeout(ENDS_S):
            while len(openai.credentials) < 6:
                await asyncio.sleep(0.02)
        gateway.write("OPENAI_API_KEY", "sk-two")
        await gateway.reload(*taken)
        openai.go_on.set()
        ended = await asyncio.gather(*running)
        after = await gateway.call(session)
        assert openai.credentials == ["Bearer sk-one"] * 6 + ["Bearer sk-two"]
        # A mistake is said, and the old key stays.
        gateway.write("OPENAI_API_KEY", "sk-three", mode=0o644)
        lines = await gateway.reload("configuration not taken, the old one stays")
        assert any("OPENAI_API_KEY_FILE: other users may read" in line.get("problem", "") for line in lines)
        again = await gateway.call(session)
        assert openai.credentials[-1] == "Bearer sk-two"
        # Webhooks.
        gateway.write("OPENAI_API_KEY", "sk-two")
        gateway.write("DAILY_WEBHOOK_SECRET", NEW_SECRET)
        assert [await gateway.webhook(session, secret) for secret in (DAILY_SECRET, NEW_SECRET)] == [200, 401]
        await gateway.reload("new secrets in use")
        assert [await gateway.webhook(session, secret) for secret in (DAILY_SECRET, NEW_SECRET)] == [401, 200]
        calls = [first, *ended, after, again]
        assert [status for status, _ in calls] == [200] * len(calls)
        for _, event_id in calls:
            row = await row_of(beside_running, event_id)
            assert (row["evidence"], row["prompt_tokens"]) == ("reported", 8)
        output = gateway.serve.output()
        assert [secret for secret in ("sk-one", "sk-two", "sk-three", NEW_SECRET) if secret in output] == []


async def test_openai_s_key_changes_for_the_next_request_on_the_same_connection() -> None:
    server = Server(OK, OK, OK)
    async with server.listen() as port:
        upstream = Upstream(f"http://127.0.0.1:{port}/v1", "sk-one", connect_s=5, first_byte_s=5)
        for key in (None, "sk-two", None):
            if key is not None:
                upstream.use_key(key)
            answer = await upstream.send("GET", "/models", {}, None)
            await answer.content.read()
            answer.release()
        await upstream.close()
    keys = [request.split(b"Authorization: Bearer ")[1].split(b"\r\n")[0] for request in server.requests]
    assert (keys, server.connections) == ([b"sk-one", b"sk-two", b"sk-two"], 1)


async def test_unkey_s_root_key_and_stripe_s_key_change() -> None:
    async with sandbox_at(Clock(1_790_000_000.0)) as sandbox, aiohttp.ClientSession() as session:
        await control(sandbox, "unkey", "/keys", key="sk_ann", external_id="ann")
        keys = Keys(session, sandbox.unkey_base_url, "wrong", timeout_s=20)
        with pytest.raises(DependencyDown):
            await keys.verify("sk_ann")
        keys.use_root_key(credentials.UNKEY_ROOT_KEY)
        assert (await keys.verify("sk_ann")).code == "VALID"
        billing = Billing("sk_live_wrong", base_url=sandbox.stripe_base_url)
        try:
            with pytest.raises(ConfigError):
                await billing.account()
            billing.use_key(credentials.STRIPE_SECRET_KEY)
            assert await billing.account() == f"{credentials.STRIPE_ACCOUNT}/test"
        finally:
            await billing.close()
