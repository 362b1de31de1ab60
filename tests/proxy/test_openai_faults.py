"""What OpenAI can do wrong, through the whole gateway: each fault ends in one row with the right evidence."""

import json
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from gateway.sandbox import credentials
from pricing.data import read_texts
from tests.support.gateway import Stack
from tests.support.patience import ENDS_S
from tests.support.recompute import recompute
from tests.support.whole_gateway import row_of

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Tell me something"}]}
RESPONSES: dict[str, Any] = {"model": "gpt-4o-mini", "input": "Tell me something", "store": False}
PATHS = {"chat": ("/chat/completions", CHAT), "responses": ("/responses", RESPONSES)}
EVENT_ID = "x-gateway-event-id"


async def call(running: Stack, endpoint: str, *, stream: bool) -> tuple[int, str, bytes]:
    """(status, event id, body or what came of it before the connection broke)."""
    path, body = PATHS[endpoint]
    headers = {"Authorization": f"Bearer {running.key}"}
    got = b""
    async with (
        aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=ENDS_S)) as session,
        session.post(running.base_url + path, json={**body, "stream": stream}, allow_redirects=False) as response,
    ):
        try:
            async for piece in response.content.iter_any():
                got += piece
        except aiohttp.ClientError:
            got += b"<cut>"
        return response.status, response.headers[EVENT_ID], got


DROPS = [{"drop": "before"}, {"drop": "after"}]
CUT = [{"cut_after": 4, "cut_how": how} for how in ("chunked", "length", "close")]


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
@pytest.mark.parametrize("fault", [*CUT, {"usage": "omit"}, {"error_after": 3}, {"drop": "after"}])
async def test_a_stream_without_its_end_is_an_estimate(running: Stack, endpoint: str, fault: dict[str, Any]) -> None:
    running.control("openai", body={"times": 1, "endpoint": endpoint, **fault})
    _, event_id, _ = await call(running, endpoint, stream=True)
    row = await row_of(running, event_id)
    metadata = json.loads(row["metadata"])
    assert row["evidence"] == "estimated"
    assert metadata["reason"]
    assert Decimal(metadata["bound_usd"]) >= row["cost_usd"] > 0
    assert row["prompt_tokens"] > 0


@pytest.mark.parametrize("usage", ["malformed", "negative"])
async def test_usage_that_makes_no_sense_is_never_priced_as_if_it_did(running: Stack, usage: str) -> None:
    running.control("openai", body={"times": 1, "usage": usage})
    status, event_id, _ = await call(running, "chat", stream=False)
    row = await row_of(running, event_id)
    assert status == 200
    assert (row["evidence"], row["cost_usd"], row["billed_usd"]) == ("unpriced", None, None)
    assert json.loads(row["metadata"])["problems"]
    assert row["usage"] is not None  # what was sent is kept, so that it can be looked at


async def test_a_failed_response_costs_what_it_said(running: Stack) -> None:
    running.control("openai", body={"times": 1, "endpoint": "responses", "fail_after": 6})
    _, event_id, body = await call(running, "responses", stream=True)
    row = await row_of(running, event_id)
    usage = json.loads(row["usage"])
    assert b"response.failed" in body
    assert (row["evidence"], json.loads(row["metadata"])["failed"]) == ("reported", True)
    assert row["cost_usd"] == recompute(read_texts(), "responses", row["model"], "default", row["started_at"], usage)


async def test_an_unknown_model_in_the_answer_is_unpriced(running: Stack) -> None:
    running.control("openai", body={"times": 1, "response_model": "gpt-from-tomorrow"})
    _, event_id, _ = await call(running, "chat", stream=False)
    row = await row_of(running, event_id)
    assert (row["evidence"], row["cost_usd"], row["billed_usd"]) == ("unpriced", None, None)
    assert row["model"] == "gpt-from-tomorrow"
    assert row["total_tokens"] > 0
    assert json.loads(row["metadata"])["requested_model"] == "gpt-4o-mini"


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_a_refusal_of_openai_is_void_and_passed_on(running: Stack, status: int) -> None:
    running.control("openai", body={"times": 1, "status": status})
    got, event_id, body = await call(running, "chat", stream=True)
    row = await row_of(running, event_id)
    assert got == status
    assert json.loads(body)["error"]["message"]
    assert (row["evidence"], row["cost_usd"], row["billed_usd"]) == ("void", 0, 0)
    assert json.loads(row["metadata"])["void_reason"] == f"http_{status}"


@pytest.mark.parametrize("fault", [{"status": 502, "plain": True}, {"status": 500, "plain": True}, *DROPS])
async def test_an_answer_that_says_nothing_is_an_estimate(running: Stack, fault: dict[str, Any]) -> None:
    running.control("openai", body={"times": 1, **fault})
    status, event_id, _ = await call(running, "chat", stream=False)
    row = await row_of(running, event_id)
    assert status >= 500
    assert row["evidence"] == "estimated"
    assert row["cost_usd"] > 0


async def test_the_gateways_own_credential_stays_its_own(running: Stack) -> None:
    running.control("openai", body={"times": 1, "status": 401, "message": "Incorrect API key provided: sk-sand****"})
    status, event_id, body = await call(running, "chat", stream=False)
    assert status == 502
    assert json.loads(body)["error"]["code"] == "upstream_credential_refused"
    assert b"sk-sand" not in body
    assert (await row_of(running, event_id))["evidence"] == "void"


async def test_a_redirect_is_not_followed(running: Stack) -> None:
    running.control("openai", body={"times": 1, "redirect": f"http://127.0.0.1:{running.sandbox_port}/stolen"})
    status, event_id, _ = await call(running, "chat", stream=False)
    assert status == 307
    assert [one["endpoint"] for one in running.truth()][-1] == "chat"  # its target was never asked
    assert (await row_of(running, event_id))["evidence"] == "estimated"


async def test_a_client_that_leaves_is_drained_to_the_exact_usage(running: Stack) -> None:
    running.control("openai", body={"times": 1, "interval_s": 0.1, "chunks": 40})
    path, body = PATHS["chat"]
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {running.key}"}) as session:
        response = await session.post(running.base_url + path, json={**body, "stream": True})
        event_id = response.headers[EVENT_ID]
        await response.content.readany()
        response.close()
    row = await row_of(running, event_id)
    usage = json.loads(row["usage"])
    assert (row["evidence"], row["completion_tokens"]) == ("drained", 40)
    assert row["cost_usd"] == recompute(read_texts(), "chat", row["model"], "default", row["started_at"], usage)


@pytest.mark.long
async def test_nobody_listening_is_void(fresh_stack: Stack) -> None:
    fresh_stack.start()
    fresh_stack.processes[0].stop()  # the sandbox
    # The key is remembered only when it has been seen; so this call is refused before it could cost anything.
    status, _, body = await call(fresh_stack, "chat", stream=False)
    assert status == 503
    assert json.loads(body)["error"]["code"] == "key_verification_unavailable"


@pytest.mark.long
async def test_openai_away_is_void_not_sent(fresh_stack: Stack) -> None:
    fresh_stack.env["UPSTREAM__CONNECT_S"] = "1"
    fresh_stack.start()
    assert (await call(fresh_stack, "chat", stream=False))[0] == 200
    fresh_stack.processes[0].stop()
    status, event_id, body = await call(fresh_stack, "chat", stream=False)
    row = await row_of(fresh_stack, event_id)
    assert status == 502
    if row["evidence"] == "void":
        assert json.loads(row["metadata"])["void_reason"] == "not_sent"
        assert json.loads(body)["error"]["code"] == "upstream_unreachable"
    else:  # a kept connection may have taken the request before it was seen to be closed
        assert json.loads(body)["error"]["code"] == "upstream_cut"


@pytest.mark.long
async def test_a_silent_openai_is_given_up(fresh_stack: Stack) -> None:
    fresh_stack.env["UPSTREAM__READ_S"] = "3"
    fresh_stack.start()
    await _prepare_tokenizer(fresh_stack)
    fresh_stack.control("openai", body={"times": 1, "delay_s": 60})
    status, event_id, body = await call(fresh_stack, "chat", stream=False)
    assert status == 504
    assert json.loads(body)["error"]["code"] == "upstream_timeout"
    assert (await row_of(fresh_stack, event_id))["evidence"] == "estimated"
    fresh_stack.control("openai", "DELETE")
    fresh_stack.control("openai", body={"times": 1, "interval_s": 60})
    _, event_id, got = await call(fresh_stack, "chat", stream=True)
    row = await row_of(fresh_stack, event_id)
    assert (row["evidence"], json.loads(row["metadata"])["reason"]) == ("estimated", "upstream_timeout")
    assert got.endswith(b"<cut>")


async def _prepare_tokenizer(running: Stack) -> None:
    """The stand-in's first call builds its tokenizer, which on a busy machine takes longer than the gateway waits."""
    url = f"http://127.0.0.1:{running.sandbox_port}/openai/v1{PATHS['chat'][0]}"
    headers = {"Authorization": f"Bearer {credentials.OPENAI_API_KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=CHAT) as response:
        assert response.status == 200
