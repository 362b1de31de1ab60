"""A Stripe that only counts: the truth of the billing tests. It is never killed, and it can be told to misbehave.

It forgets no identifier, takes one call per customer and meter at a time, and answers in Stripe's words.
"""

import asyncio
from collections import Counter
from typing import Final

from aiohttp import web
from aiohttp.test_utils import TestServer

METER: Final = "openai_usage_micro_usd"
KEY_END: Final = "qs8Kgd"
"""Stripe's message about a restricted key repeats the key's end (stripe/stripe-node issue 2246)."""


class StripeTruth:
    """`events` is what Stripe has counted: identifier → (customer, micro-USD)."""

    def __init__(self) -> None:
        self.events: Final[dict[str, tuple[str, int]]] = {}
        self.calls: Final[list[str]] = []
        """Identifiers as they came, repeats included."""
        self.keys: Final[list[str]] = []
        self.busiest = 0
        """Calls at the same time at most."""
        self.crowded = 0
        """Calls that came while another one for the same customer was running."""
        self.next: Final[list[str]] = []
        """Misbehaviour of the next calls: `429`, `500`, `401`, `lost` (counted, answer lost), `no meter`,
        `refuse` (another 400), `global-rate`, `resource-specific` (429 with that reason), `ok`."""
        self.always: str = "ok"
        self.delay_s: float = 0.0
        self._running: Final[Counter[str]] = Counter()
        app = web.Application()
        self.account = "acct_truth"
        self.lacks: str | None = None
        """The permission that a restricted key lacks to read its account."""
        self.has_meter = True
        self.formula = "sum"
        app.router.add_get("/v1/account", self._account)
        app.router.add_get("/v1/billing/meters", self._meters)
        app.router.add_post("/v1/billing/meter_events", self._meter_event)
        self._server: Final = TestServer(app)

    async def __aenter__(self) -> "StripeTruth":
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    def total(self, customer: str | None = None) -> int:
        """Whole micro-USD counted, of one customer or all."""
        return sum(value for who, value in self.events.values() if customer in (None, who))

    async def _account(self, _: web.Request) -> web.Response:
        if self.lacks is not None:
            said = (
                f"The provided key 'rk_test_****{KEY_END}' does not have the required permissions for this endpoint on"
            )
            told = f"account 'acct_1'. Having the '{self.lacks}' permission would allow this request to continue."
            return _error(403, f"{said} {told}")
        return web.json_response({"id": self.account, "object": "account"})

    async def _meters(self, _: web.Request) -> web.Response:
        meter = {
            "id": "mtr_1",
            "object": "billing.meter",
            "event_name": METER,
            "status": "active",
            "default_aggregation": {"formula": self.formula},
            "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
            "value_settings": {"event_payload_key": "value"},
            "event_time_window": None,
        }
        data = [meter] if self.has_meter else []
        return web.json_response({"object": "list", "data": data, "has_more": False, "url": "/v1/billing/meters"})

    async def _meter_event(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        identifier, customer = str(form["identifier"]), str(form["payload[stripe_customer_id]"])
        self.calls.append(identifier)
        self.keys.append(request.headers["idempotency-key"])
        self.crowded += self._running[customer]
        self._running[customer] += 1
        self.busiest = max(self.busiest, self._running.total())
        await asyncio.sleep(self.delay_s)
        self._running[customer] -= 1
        mood = self.next.pop(0) if self.next else self.always
        if mood in ("429", "500", "401"):
            return _error(int(mood), "told to")
        event_name = str(form["event_name"])
        if mood == "refuse":
            return _error(400, f"Invalid value for {customer}")
        if mood in ("global-rate", "resource-specific"):
            return _error(429, "Too many requests", {"Stripe-Rate-Limited-Reason": mood})
        if mood == "no meter" or event_name != METER:
            return _error(400, f'No active meter found for event name "{event_name}"')
        if identifier in self.events:
            return _error(400, f"An event already exists with identifier {identifier}.")
        self.events[identifier] = (customer, int(str(form["payload[value]"])))
        if mood == "lost" and request.transport is not None:
            request.transport.abort()
        return web.json_response({"object": "billing.meter_event", "identifier": identifier})


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"error": {"type": "invalid_request_error", "message": message}}
    return web.json_response(error, status=status, headers=headers)
