"""`/webhooks/stripe`: what is genuine is committed and acknowledged, everything else refused, each event once."""

import asyncio
import io
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
import stripe
from aiohttp import test_utils, web

from gateway.billing.webhooks.event import UNREADABLE, read_event
from gateway.billing.webhooks.inbox import StripeInbox
from gateway.billing.webhooks.receive import StripeWebhooks
from gateway.billing.webhooks.signature import sign
from gateway.kit.errors import ApiError
from gateway.stores.postgres import Pool
from gateway.stores.webhook_inbox import WebhookEvent
from tests.support.gateway import Stack
from tests.support.stripe_samples import NOTIFICATION
from tests.support.whole_gateway import STRIPE_SECRETS


def snapshot(event_id: str, kind: str = "invoice.paid", **about: Any) -> bytes:
    """An event with an object in it (stripe-python 16.1, `Event`)."""
    document = {
        "id": event_id, "object": "event", "api_version": "2026-10-28.endive", "created": 1_800_000_000, "type": kind,
        "data": {"object": {"object": "invoice", "id": "in_1"} | about}, "livemode": False, "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
    }  # fmt: skip
    return json.dumps(document, indent=2).encode()


def signed(body: bytes, secret: str = STRIPE_SECRETS[1], at: float | None = None) -> dict[str, str]:
    moment = str(int(time.time() if at is None else at))
    return {"Stripe-Signature": f"t={moment},v1={sign(secret, moment, body)},v0={'0' * 64}"}


async def post(
    running: Stack, body: bytes | io.BytesIO, headers: dict[str, str] | list[tuple[str, str]]
) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{running.port}/webhooks/stripe"
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
        return response.status, await response.json()


async def rows(running: Stack, event_id: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(running.env["DATABASE_URL"])
    try:
        query = "select * from webhook_inbox where source = 'stripe' and event_id = $1"
        return list(await connection.fetch(query, event_id))
    finally:
        await connection.close()


async def test_a_genuine_event_is_stored_once_whichever_secret_signed_it(running: Stack) -> None:
    event_id = f"evt_{uuid4().hex}"
    body = snapshot(event_id, "no.such.type")
    for secret in (*STRIPE_SECRETS, *STRIPE_SECRETS):
        assert await post(running, body, signed(body, secret)) == (200, {})
    (row,) = await rows(running, event_id)
    assert (row["event_type"], bytes(row["body"])) == ("no.such.type", body)
    assert row["occurred_at"] == datetime.fromtimestamp(1_800_000_000, UTC)
    assert "in_1" not in running.serve.output()


async def test_a_worker_applies_it(running: Stack) -> None:
    url, key = running.env["STRIPE_BASE_URL"], running.env["STRIPE_SECRET_KEY"]
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.post(f"{url}/v1/customers", data={"email": "hook@example.com"}) as response,
    ):
        customer = (await response.json())["id"]
    body = snapshot(f"evt_{uuid4().hex}", "customer.updated", object="customer", id=customer)
    assert await post(running, body, signed(body)) == (200, {})
    connection = await asyncpg.connect(running.env["DATABASE_URL"])
    try:
        async with asyncio.timeout(90):
            while not await connection.fetchval("select exists (select from stripe_customers where id = $1)", customer):
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def test_what_is_not_stripe_s_is_refused_and_not_stored(running: Stack) -> None:
    event_id = f"evt_{uuid4().hex}"
    body = snapshot(event_id)
    good = signed(body)
    for headers in (
        {},
        {"Stripe-Signature": ""},
        {"Stripe-Signature": good["Stripe-Signature"].replace("v1=", "v1=0")},
        signed(body, "whsec_of_somebody_else"),
        signed(body, at=time.time() - 400),
        signed(body + b" "),
        [*good.items(), *good.items()],
    ):
        status, answer = await post(running, body, headers)
        assert (status, answer["error"]["code"]) == (400, "invalid_signature")
    assert await rows(running, event_id) == []


@pytest.mark.parametrize(
    "field",
    [
        "",
        "Stripe-Signature: t=NOW",
        "Stripe-Signature: t=1600000000,v1=" + "a" * 64,
        "Stripe-Signature: t=NOW,v1=" + "g" * 64,
        "Stripe-Signature: t=NOW,v1=" + ",v1=".join(["a" * 64] * 100),
    ],
)
async def test_what_headers_show_is_refused_before_the_body_comes(running: Stack, field: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    lines = ["POST /webhooks/stripe HTTP/1.1", "Host: x", "Content-Length: 500000"]
    lines += [field.replace("NOW", str(int(time.time())))] if field else []
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert (await reader.readline()).split()[1] == b"400"
    writer.close()


async def test_other_methods_paths_and_huge_bodies(running: Stack) -> None:
    base = f"http://127.0.0.1:{running.port}"
    async with aiohttp.ClientSession() as session:
        for method, path, status in (("GET", "/webhooks/stripe", 405), ("POST", "/webhooks/stripe/x", 404)):
            async with session.request(method, base + path) as response:
                assert (response.status, (await response.json())["error"]["type"]) == (status, "invalid_request_error")
    huge = b"[" + b" " * (1024 * 1024 + 10) + b"]"
    assert (await post(running, io.BytesIO(huge), signed(huge)))[0] == 413


@pytest.mark.parametrize(
    "body", [b"[15]", b"\xff\x15", b'{"type":15}', b"[" * 3015, b'{"id":"evt_1","object":"event",', snapshot("evt\x00")]
)
async def test_what_is_signed_and_no_event_is_kept_and_acknowledged(running: Stack, body: bytes) -> None:
    assert await post(running, body, signed(body)) == (200, {})
    (row,) = await rows(running, read_event(body).id)
    assert (row["event_type"], bytes(row["body"])) == (UNREADABLE, body)


def test_thin_events_and_snapshots_are_distinguished_as_the_sdk_does() -> None:
    thin, whole = json.dumps(NOTIFICATION).encode(), snapshot("evt_2", "credit_note.created", invoice="in_7")
    client = stripe.StripeClient("sk_test_x")
    secret = STRIPE_SECRETS[0]
    header = signed(thin, secret)["Stripe-Signature"]
    theirs: Any = client.parse_event_notification(thin, header, secret)
    ours = read_event(thin)
    assert (ours.is_thin, ours.id, ours.type) == (True, theirs.id, theirs.type)
    assert (ours.object_id, ours.object_kind) == (theirs.related_object.id, theirs.related_object.type)
    assert ours.occurred_at is not None
    event: Any = client.construct_event(whole, signed(whole, secret)["Stripe-Signature"], secret)
    ours = read_event(whole)
    assert (ours.is_thin, ours.id, ours.type) == (False, event.id, event.type)
    assert (ours.object_id, ours.object_kind, ours.invoice) == ("in_1", "invoice", "in_7")
    with pytest.raises(ValueError, match="notification"):
        client.parse_event_notification(whole, signed(whole, secret)["Stripe-Signature"], secret)


class _Killed(Exception):
    """The process is gone: nothing that follows happens."""


class _Store(StripeInbox):
    """Is killed when the events are committed and nobody has been told."""

    killed = False

    async def store(self, events: Sequence[WebhookEvent]) -> set[str]:
        new = await super().store(events)
        if not self.killed:
            self.killed = True
            raise _Killed
        return new


async def test_killed_between_the_commit_and_the_answer(pool: Pool) -> None:
    """Stripe has no answer and sends it again: then it has one, and there is still one event."""
    store, body = _Store(pool), snapshot("evt_1")

    async def read_body(request: web.BaseRequest, _most: int) -> bytes:
        return await request.read()

    webhooks = StripeWebhooks(store, STRIPE_SECRETS, read_body=read_body, unix_s=time.time)
    statuses = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await webhooks.handle(request)
        except _Killed:
            assert request.transport is not None
            request.transport.abort()
            raise

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/stripe"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post(url, data=body, headers=signed(body))
        for _ in range(2):
            async with session.post(url, data=body, headers=signed(body)) as response:
                statuses.append(response.status)
    await runner.cleanup()
    assert statuses == [200, 200]
    assert await pool.fetchval("select count(*) from webhook_inbox") == 1
    leased = await store.lease()
    assert leased is not None
    assert leased.body == body
    assert await store.lease() is None  # in hand


async def test_without_a_secret_nothing_is_taken() -> None:
    async def never(_request: web.BaseRequest, _most: int) -> bytes:
        raise AssertionError("the body is not read")

    webhooks = StripeWebhooks(_Store(None), (), read_body=never, unix_s=time.time)  # type: ignore[arg-type]
    request = test_utils.make_mocked_request("POST", "/webhooks/stripe", headers=signed(b"{}"))
    with pytest.raises(ApiError) as caught:
        await webhooks.handle(request)
    assert (caught.value.status, caught.value.code) == (404, "webhooks_not_configured")
    webhooks.use_secrets(STRIPE_SECRETS)  # from the next request on
    with pytest.raises(AssertionError, match="the body is not read"):
        await webhooks.handle(request)
