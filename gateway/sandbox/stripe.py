"""The Stripe stand-in: customers, meters, meter events and their summaries, as far as usage billing needs them.

It counts exactly what it accepted; `events` is the tests' truth. Must not know that a gateway calls it. Its HTTP,
idempotency and control calls are in `stripe_control`.
"""

import secrets
from collections.abc import Callable
from typing import Any, Final

import msgspec

from gateway.sandbox.stripe_meters import DAY_S, WINDOWS, Event, Meter, Refused, checked, summaries, whole
from gateway.sandbox.stripe_v2 import from_v2, rfc3339

SESSION_S: Final = 900
STREAM_EVENTS_MAX: Final = 100


class Kept(msgspec.Struct):
    """Everything that outlives a restart. Idempotency keys do not: identifiers still count an event once."""

    customers: dict[str, dict[str, Any]] = {}
    meters: dict[str, Meter] = {}
    events: list[Event] = []
    identifiers: dict[str, int] = {}


class Stripe:
    """The stand-in's state and what each endpoint does with it."""

    def __init__(self, secret_key: str, *, clock: Callable[[], float]) -> None:
        """`clock` gives Unix seconds."""
        self.secret_key: Final = secret_key
        self.customers: Final[dict[str, dict[str, Any]]] = {}
        self.meters: Final[dict[str, Meter]] = {}
        self.events: Final[list[Event]] = []
        """Everything accepted, in the order in which it came."""
        self.rejected: Final[list[dict[str, Any]]] = []
        """Events of the v2 stream that were found wrong after their 200."""
        self._clock: Final = clock
        self._identifiers: Final[dict[str, int]] = {}
        """Identifier → when it was seen, Unix seconds."""
        self._sessions: Final[dict[str, int]] = {}

    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    def kept(self) -> Kept:
        """What the next run should know."""
        return Kept(self.customers, self.meters, self.events, self._identifiers)

    def load(self, kept: Kept) -> None:
        """Takes over what an earlier run kept."""
        self.customers.update(kept.customers)
        self.meters.update(kept.meters)
        self.events.extend(kept.events)
        self._identifiers.update(kept.identifiers)

    def create_customer(self, form: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/customers."""
        customer_id = f"cus_{secrets.token_hex(7)}"
        customer = {"id": customer_id, "object": "customer", "created": self.now(), "livemode": False}
        customer |= {name: form.get(name) for name in ("email", "name", "description")}
        self.customers[customer_id] = customer | {"metadata": form.get("metadata") or {}}
        return self.customers[customer_id]

    def customer(self, customer_id: str) -> dict[str, Any]:
        """GET /v1/customers/{id}."""
        if customer_id not in self.customers:
            raise _missing("customer", customer_id)
        return self.customers[customer_id]

    def list_customers(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/customers, newest first; `email` must match to the letter."""
        found = [one for one in self.customers.values() if query.get("email") in (None, one["email"])]
        return _listed(found[::-1], query, "/v1/customers")

    def add_meter(self, event_name: str, **fields: Any) -> Meter:
        """An active meter, made as a fixture; `fields` as in `Meter`."""
        now = self.now()
        fields = {"display_name": event_name} | fields
        meter = Meter(f"mtr_{secrets.token_hex(10)}", now, now, event_name=event_name, **fields)
        self.meters[meter.id] = meter
        return meter

    def create_meter(self, form: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/billing/meters."""
        event_name, formula = form.get("event_name"), _inner(form, "default_aggregation", "formula")
        for name, value in (("display_name", form.get("display_name")), ("event_name", event_name)):
            if not isinstance(value, str) or not 1 <= len(value) <= 250:
                raise Refused(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
        if formula not in ("sum", "count", "last"):
            raise Refused(400, "Invalid default_aggregation[formula].", param="default_aggregation[formula]")
        if form.get("event_time_window") not in (None, *WINDOWS):
            raise Refused(400, "Invalid event_time_window.", param="event_time_window")
        if self._active(str(event_name)) is not None:
            raise Refused(400, f"An active meter with event name {event_name} exists already.", param="event_name")
        meter = self.add_meter(
            str(event_name),
            display_name=form["display_name"],
            formula=formula,
            customer_key=_inner(form, "customer_mapping", "event_payload_key") or "stripe_customer_id",
            value_key=_inner(form, "value_settings", "event_payload_key") or "value",
            window=form.get("event_time_window"),
        )
        return meter.form()

    def meter(self, meter_id: str) -> Meter:
        """GET /v1/billing/meters/{id}."""
        if meter_id not in self.meters:
            raise _missing("billing.meter", meter_id)
        return self.meters[meter_id]

    def list_meters(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/billing/meters."""
        found = [meter for meter in self.meters.values() if query.get("status") in (None, meter.status)]
        return _listed([meter.form() for meter in reversed(found)], query, "/v1/billing/meters")

    def set_status(self, meter_id: str, status: str) -> dict[str, Any]:
        """POST /v1/billing/meters/{id}/deactivate and /reactivate."""
        meter = self.meter(meter_id)
        if meter.status == status:
            raise Refused(400, f"The meter is {status} already.")
        if status == "active" and self._active(meter.event_name) is not None:
            raise Refused(400, f"An active meter with event name {meter.event_name} exists already.")
        meter.status, meter.updated = status, self.now()
        meter.deactivated_at = meter.updated if status == "inactive" else None
        return meter.form()

    def rename_meter(self, meter_id: str, form: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/billing/meters/{id}: nothing but the name can change."""
        meter = self.meter(meter_id)
        if unknown := sorted(form.keys() - {"display_name"}):
            raise Refused(400, f"Received unknown parameter: {unknown[0]}", code="parameter_unknown", param=unknown[0])
        meter.display_name, meter.updated = form.get("display_name", meter.display_name), self.now()
        return meter.form()

    def slot(self, form: dict[str, Any]) -> tuple[str, str] | None:
        """(customer, meter) of an event: Stripe takes one call at a time for it."""
        meter = self._active(str(form.get("event_name")))
        payload = form.get("payload")
        if meter is None or not isinstance(payload, dict):
            return None
        return str(payload.get(meter.customer_key)), meter.id

    def add_event(self, form: dict[str, Any]) -> Event:
        """POST /v1/billing/meter_events. Raises Refused (400)."""
        event_name = form.get("event_name")
        if not event_name:
            raise Refused(400, "Missing required param: event_name.", code="parameter_missing", param="event_name")
        meter = self._active(str(event_name))
        if meter is None:
            raise Refused(400, f'No active meter found for event name "{event_name}"', param="event_name")
        now = self.now()
        at = whole(form["timestamp"], "timestamp") if form.get("timestamp") else now
        identifier = str(form.get("identifier") or secrets.token_hex(16))
        event = checked(meter, form.get("payload"), identifier, at, now)
        if now - self._identifiers.get(identifier, now - DAY_S) < DAY_S:
            message = f"An event already exists with identifier {identifier}."
            raise Refused(400, message, headers={"stripe-should-retry": "false"})
        self._identifiers[identifier] = now
        self.events.append(event)
        return event

    def adjust(self, form: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/billing/meter_event_adjustments: takes one event back, within a day of its arrival."""
        identifier = _inner(form, "cancel", "identifier")
        if form.get("type") != "cancel" or not identifier:
            raise Refused(400, "Missing required param: cancel[identifier].", param="cancel[identifier]")
        for event in reversed(self.events):
            if (event.identifier, event.event_name) == (identifier, form.get("event_name")):
                if self.now() - event.created > DAY_S:
                    raise Refused(400, "The event is older than 24 hours and cannot be cancelled.")
                event.cancelled = True
                about = {"event_name": event.event_name, "type": "cancel", "cancel": {"identifier": identifier}}
                adjusted = {"object": "billing.meter_event_adjustment", "livemode": False, "status": "complete"}
                return adjusted | about
        raise _missing("billing.meter_event", str(identifier))

    def summaries(self, meter_id: str, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/billing/meters/{id}/event_summaries."""
        meter = self.meter(meter_id)
        for name in ("customer", "start_time", "end_time"):
            if not query.get(name):
                raise Refused(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
        grouping = query.get("value_grouping_window")
        if grouping not in (None, *WINDOWS):
            raise Refused(400, "Invalid value_grouping_window.", param="value_grouping_window")
        start, end = (whole(query[name], name) for name in ("start_time", "end_time"))
        step = WINDOWS.get(str(grouping), 60)
        if start % step or end % step:
            raise Refused(400, f"start_time and end_time must be multiples of {step} seconds.", param="start_time")
        own = [event for event in self.events if (event.meter, event.customer) == (meter_id, query["customer"])]
        found = summaries(meter, own, start, end, grouping)
        return _listed(found, query, f"/v1/billing/meters/{meter_id}/event_summaries")

    def open_session(self) -> dict[str, Any]:
        """POST /v2/billing/meter_event_session: a token for the stream, for 15 minutes."""
        token, now = f"token_{secrets.token_hex(16)}", self.now()
        self._sessions[token] = now + SESSION_S
        return {
            "id": f"mes_{secrets.token_hex(8)}",
            "object": "v2.billing.meter_event_session",
            "authentication_token": token,
            "created": rfc3339(now),
            "expires_at": rfc3339(now + SESSION_S),
            "livemode": False,
        }

    def stream(self, token: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v2/billing/meter_event_stream: answers at once, finds fault later (`rejected`)."""
        expires = self._sessions.get(token)
        if expires is None:
            raise Refused(401, "The session token is not valid.", code="invalid_token")
        if expires <= self.now():
            code = "billing_meter_event_session_expired"
            raise Refused(400, "The session has expired.", kind="temporary_session_expired", code=code)
        events = body.get("events")
        if not isinstance(events, list) or not 1 <= len(events) <= STREAM_EVENTS_MAX:
            raise Refused(400, f"events: 1 to {STREAM_EVENTS_MAX} are expected.", param="events")
        for given in events:
            try:
                self.add_event(from_v2(given))
            except Refused as refused:
                self.rejected.append({"event": given, "error": refused.error})
        return {}

    def _active(self, event_name: str) -> Meter | None:
        found = [m for m in self.meters.values() if m.event_name == event_name and m.status == "active"]
        return found[0] if found else None


def _inner(form: dict[str, Any], outer: str, name: str) -> Any:
    node = form.get(outer)
    return node.get(name) if isinstance(node, dict) else None


def _missing(what: str, object_id: str) -> Refused:
    return Refused(404, f"No such {what}: '{object_id}'", code="resource_missing", param="id")


def _listed(items: list[dict[str, Any]], query: dict[str, Any], url: str) -> dict[str, Any]:
    ids = [item["id"] for item in items]
    after = query.get("starting_after")
    start = ids.index(after) + 1 if after in ids else 0
    limit = whole(query.get("limit", "10"), "limit")
    if not 1 <= limit <= 100:
        raise Refused(400, "Invalid limit: an integer from 1 to 100 is expected.", param="limit")
    end = start + limit
    return {"object": "list", "data": items[start:end], "has_more": end < len(items), "url": url}
