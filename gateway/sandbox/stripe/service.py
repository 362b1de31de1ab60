"""The Stripe stand-in: customers, meters, meter events and their summaries; billing.py has what is made of them.

`events` is what it counts, the tests' truth. A 200 says that an event was received, no more: one whose customer it does
not have is never counted, and is reported later. Must not know that a gateway calls it. Its HTTP and idempotency are in
http.py, its control calls in routes.py.
"""

import secrets
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from gateway.sandbox.credentials import STRIPE_ACCOUNT
from gateway.sandbox.stripe.billing import StripeBilling
from gateway.sandbox.stripe.clock import MovedClock
from gateway.sandbox.stripe.counted import CountedEvents
from gateway.sandbox.stripe.customers import TEXTS, Customers
from gateway.sandbox.stripe.destinations import Destinations
from gateway.sandbox.stripe.events import EventLog
from gateway.sandbox.stripe.meters import (
    DAY_S,
    INVALID_VALUE,
    WINDOWS,
    AcceptedEvent,
    Meter,
    StripeApiError,
    check_event,
    list_page,
    missing,
    summaries,
    whole_number,
)
from gateway.sandbox.stripe.objects import Account, AccountSettings, Stored
from gateway.sandbox.stripe.params import check_known, read_metadata
from gateway.sandbox.stripe.reports import NO_METER, ErrorReports, UncountedEvent
from gateway.sandbox.stripe.stream_sessions import StreamSessions
from gateway.sandbox.stripe.v2 import from_v2
from gateway.sandbox.stripe.webhooks import Deliveries

STREAM_EVENTS_MAX: Final = 100
CUSTOMER_NOT_FOUND: Final = "meter_event_customer_not_found"
ARCHIVED_METER: Final = "archived_meter"
OWN: Final = "sandbox."
"""Begins the kinds of objects that Stripe does not have."""


class StripeState(msgspec.Struct):
    """Everything that outlives a restart. Idempotency keys do not: identifiers still count an event once."""

    customers: dict[str, dict[str, Any]] = {}
    meters: dict[str, Meter] = {}
    events: list[AcceptedEvent] = []
    identifiers: dict[str, int] = {}
    uncounted: list[UncountedEvent] = []
    reports: list[dict[str, Any]] = []
    kinds: dict[str, dict[str, Stored]] = {}
    settings: AccountSettings = AccountSettings()
    ahead_s: int = 0
    """Of the clock."""


class Ways(msgspec.Struct, forbid_unknown_fields=True):
    """Where nobody knows what Stripe does: the choice of a test."""

    summaries_of_unknown: Literal[200, 400, 404] = 200
    """Status of event_summaries for a customer that this key does not see; 200 is an empty list."""
    summaries_lag_s: int = 0
    """Seconds from an event's arrival until the summaries show it. Stripe's docs promise "eventually consistent" and
    no figure; one integrator polls for up to 120 s."""
    waits_for_webhooks: bool = False
    """Whether an invoice of a cycle waits, for 72 hours at most, until `invoice.created` has been answered with 2xx
    (docs.stripe.com, workflow-transitions)."""
    crowded: Literal[409, 429] = 429
    """Status of a v1 event that comes while another one for the same customer and meter is running: 429 as the page on
    rate limits has it; two integrators saw 409. v2 has 409 (stripe/openapi: `too_many_concurrent_requests`)."""
    no_meter_late: bool = False
    """Whether an event name without a meter is found out after a 200 in v1 too, rather than refused at once."""


class StripeService:
    """The stand-in's state and what each endpoint does with it."""

    def __init__(self, secret_key: str, *, clock: Callable[[], float], account_id: str = STRIPE_ACCOUNT) -> None:
        """`clock` gives Unix seconds."""
        self.secret_key: Final = secret_key
        self.account_id: Final = account_id
        self.account: Final = Account(MovedClock(clock))
        self.customers: Final = Customers()
        self.meters: Final[dict[str, Meter]] = {}
        self.counted: Final = CountedEvents()
        self.events: Final = self.counted.all
        """Everything counted, in the order in which it came."""
        self.billing: Final = StripeBilling(self.account, self.customers, self.meter, self.counted)
        self.webhooks: Final = Deliveries(self.settle)
        self.destinations: Final = Destinations(self.account, self.webhooks)
        self.account.holds = self._holds
        self.log: Final = EventLog(self.account, self.webhooks.offer)
        self.reports: Final = ErrorReports()
        """What was received with a 200 and is never counted."""
        self.ways = Ways()
        self._identifiers: Final[dict[str, int]] = {}
        """Identifier → when it was seen, Unix seconds."""
        self._sessions: Final = StreamSessions()

    def now(self) -> int:
        """Unix seconds."""
        return self.account.now()

    def _holds(self, invoice: Stored) -> bool:
        """Whether an endpoint has not taken the invoice's making yet, where that is waited for."""
        return self.ways.waits_for_webhooks and self.webhooks.is_waiting("invoice.created", invoice["id"])

    def settle(self) -> bool:
        """Brings about what has fallen due by now, and says whether there was any."""
        reported = self.report()
        return self.billing.settle() or bool(reported)

    def report(self, *, at_once: bool = False) -> list[Stored]:
        """Makes the reports about what was not counted that are due, or all of them; the endpoints are told."""
        made = self.reports.report(self.now(), at_once=at_once)
        for event in made:
            self.webhooks.offer(event)
        return made

    def state(self) -> StripeState:
        """What the next run should know."""
        reports = self.reports
        return StripeState(
            self.customers.all,
            self.meters,
            self.events,
            self._identifiers,
            reports.uncounted,
            reports.events,
            self.account.kinds,
            self.account.settings,
            self.account.clock.ahead_s,
        )

    def load(self, kept: StripeState) -> None:
        """Takes over what an earlier run kept."""
        self.customers.all.update(kept.customers)
        self.meters.update(kept.meters)
        self.events.extend(kept.events)
        self._identifiers.update(kept.identifiers)
        self.reports.uncounted.extend(kept.uncounted)
        self.reports.events.extend(kept.reports)
        self.account.kinds.update(kept.kinds)
        self.account.settings = kept.settings
        self.account.clock.set_ahead(kept.ahead_s)
        self.billing.plan_all()
        self.destinations.resume()

    def show_account(self) -> dict[str, Any]:
        """GET /v1/account: whose key it is; of an Account's fields those that it always has (stripe-python 16.1)."""
        return {"id": self.account_id, "object": "account"}

    def create_customer(self, form: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/customers."""
        made = self.customers.get(self.customers.add(self.now(), form))
        self.account.tell("customer.created", made)
        return made

    def update_customer(self, customer_id: str, form: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/customers/{id}."""
        check_known(form, (*TEXTS, "metadata"))
        found = self.customers.get(customer_id)
        if found.get("deleted"):
            raise missing("customer", customer_id)
        fields: Stored = {name: form[name] or None for name in TEXTS if name in form}
        fields |= {"metadata": read_metadata(form, found["metadata"])}
        return self.account.change(found, "customer.updated", fields)

    def delete_customer(self, customer_id: str) -> dict[str, Any]:
        """DELETE /v1/customers/{id}: for good, with its subscriptions."""
        before = dict(self.customers.get(customer_id))
        self.billing.subscriptions.cancel_all_of(customer_id)
        deleted = self.customers.delete(customer_id)
        self.account.tell("customer.deleted", before)
        return deleted

    def add_meter(self, event_name: str, **fields: Any) -> Meter:
        """An active meter, made as a fixture; `fields` as in `Meter`."""
        now = self.now()
        fields = {"display_name": event_name} | fields
        meter = Meter(f"mtr_{secrets.token_hex(10)}", now, now, event_name=event_name, **fields)
        self.meters[meter.id] = meter
        self.account.tell("billing.meter.created", meter.form())
        return meter

    def create_meter(self, form: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/billing/meters."""
        event_name, formula = form.get("event_name"), _inner(form, "default_aggregation", "formula")
        for name, longest in (("display_name", 250), ("event_name", 100)):
            if not isinstance(form.get(name), str) or not 1 <= len(form[name]) <= longest:
                raise StripeApiError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
        if formula not in ("sum", "count", "last"):
            raise StripeApiError(400, "Invalid default_aggregation[formula].", param="default_aggregation[formula]")
        if form.get("event_time_window") not in (None, *WINDOWS):
            raise StripeApiError(400, "Invalid event_time_window.", param="event_time_window")
        if self._active(str(event_name)) is not None:
            raise StripeApiError(
                400, f"An active meter with event name {event_name} exists already.", param="event_name"
            )
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
            raise missing("billing.meter", meter_id)
        return self.meters[meter_id]

    def list_meters(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/billing/meters."""
        found = [meter for meter in self.meters.values() if query.get("status") in (None, meter.status)]
        return list_page([meter.form() for meter in reversed(found)], query, "/v1/billing/meters")

    def set_status(self, meter_id: str, status: str) -> dict[str, Any]:
        """POST /v1/billing/meters/{id}/deactivate and /reactivate."""
        meter = self.meter(meter_id)
        if meter.status == status:
            raise StripeApiError(400, f"The meter is {status} already.")
        if status == "active" and self._active(meter.event_name) is not None:
            raise StripeApiError(400, f"An active meter with event name {meter.event_name} exists already.")
        meter.status, meter.updated = status, self.now()
        meter.deactivated_at = meter.updated if status == "inactive" else None
        change = "reactivated" if status == "active" else "deactivated"
        self.account.tell(f"billing.meter.{change}", meter.form())
        return meter.form()

    def rename_meter(self, meter_id: str, form: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/billing/meters/{id}: nothing but the name can change."""
        meter = self.meter(meter_id)
        if unknown := sorted(form.keys() - {"display_name"}):
            raise StripeApiError(
                400, f"Received unknown parameter: {unknown[0]}", code="parameter_unknown", param=unknown[0]
            )
        meter.display_name, meter.updated = form.get("display_name", meter.display_name), self.now()
        self.account.tell("billing.meter.updated", meter.form())
        return meter.form()

    def slot(self, form: dict[str, Any]) -> tuple[str, str] | None:
        """(customer, meter) of an event: Stripe takes one call at a time for it."""
        meter = self._active(str(form.get("event_name")))
        payload = form.get("payload")
        if meter is None or not isinstance(payload, dict):
            return None
        return str(payload.get(meter.customer_key)), meter.id

    def add_event(self, form: dict[str, Any], *, is_stream: bool = False) -> AcceptedEvent:
        """POST /v1/billing/meter_events. Raises StripeApiError (400).

        That it is received does not say that it is counted: the customer is looked up later. A stream finds all fault
        later.
        """
        event_name = form.get("event_name")
        if not event_name:
            raise StripeApiError(
                400, "Missing required param: event_name.", code="parameter_missing", param="event_name"
            )
        meter = self._active(str(event_name))
        if meter is None and not (self.ways.no_meter_late or is_stream):
            message = f'No active meter found for event name "{event_name}"'
            raise StripeApiError(400, message, param="event_name", v2_code=self._missing_meter(str(event_name)))
        now = self.now()
        at = whole_number(form["timestamp"], "timestamp") if form.get("timestamp") else now
        identifier = str(form.get("identifier") or secrets.token_hex(16))
        event = check_event(meter or Meter("", now, now, "", str(event_name)), form.get("payload"), identifier, at, now)
        if now - self._identifiers.get(identifier, now - DAY_S) < DAY_S:
            message = f"An event already exists with identifier {identifier}."
            headers = {"stripe-should-retry": "false"}
            raise StripeApiError(400, message, headers=headers, v2_code="duplicate_meter_event")
        self._identifiers[identifier] = now  # used up, counted or not
        if meter is None:
            self._set_aside_without_meter(event)
        elif not self.customers.is_counted(event.customer):
            self._set_aside(CUSTOMER_NOT_FOUND, f"No customer was found matching id {event.customer}.", event)
        else:
            self.events.append(event)
            self.billing.alerts.look(event)
        return event

    def _set_aside(self, code: str, message: str, event: AcceptedEvent) -> None:
        about = (event.identifier, event.event_name, event.customer, event.meter or None)
        self.reports.uncounted.append(UncountedEvent(event.created, code, message, *about))

    def _set_aside_without_meter(self, event: AcceptedEvent) -> None:
        """Reports that the name's meter is archived, or that there is none. The first sentence is a guess."""
        archived = [one for one in self.meters.values() if one.event_name == event.event_name]
        if archived:
            event.meter = archived[-1].id
            self._set_aside(ARCHIVED_METER, f"The meter {event.meter} is archived.", event)
        else:
            self._set_aside(NO_METER, f"No meter was found matching event_name {event.event_name}.", event)

    def _missing_meter(self, event_name: str) -> str:
        return ARCHIVED_METER if any(one.event_name == event_name for one in self.meters.values()) else NO_METER

    def find(self, object_id: str) -> Any:
        """Any object by its id, for `expand`."""
        stored = (objects.get(object_id) for kind, objects in self.account.kinds.items() if not kind.startswith(OWN))
        found = next((one for one in stored if one is not None), None) or self.customers.all.get(object_id)
        return self.meters[object_id].form() if object_id in self.meters else found

    def adjust(self, form: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/billing/meter_event_adjustments: takes one event back, within a day of its arrival."""
        identifier = _inner(form, "cancel", "identifier")
        if form.get("type") != "cancel" or not identifier:
            raise StripeApiError(400, "Missing required param: cancel[identifier].", param="cancel[identifier]")
        for event in reversed(self.events):
            if (event.identifier, event.event_name) == (identifier, form.get("event_name")):
                if self.now() - event.created > DAY_S:
                    raise StripeApiError(400, "The event is older than 24 hours and cannot be cancelled.")
                event.cancelled = True
                about = {"event_name": event.event_name, "type": "cancel", "cancel": {"identifier": identifier}}
                adjusted = {"object": "billing.meter_event_adjustment", "livemode": False, "status": "complete"}
                return adjusted | about
        raise missing("billing.meter_event", str(identifier))

    def summaries(self, meter_id: str, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/billing/meters/{id}/event_summaries."""
        meter = self.meter(meter_id)
        for name in ("customer", "start_time", "end_time"):
            if not query.get(name):
                raise StripeApiError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
        grouping = query.get("value_grouping_window")
        if grouping not in (None, *WINDOWS):
            raise StripeApiError(400, "Invalid value_grouping_window.", param="value_grouping_window")
        start, end = (whole_number(query[name], name) for name in ("start_time", "end_time"))
        step = WINDOWS.get(str(grouping), 60)
        if start % step or end % step:
            raise StripeApiError(
                400, f"start_time and end_time must be multiples of {step} seconds.", param="start_time"
            )
        if self.ways.summaries_of_unknown != 200 and not self.customers.is_counted(query["customer"]):
            unknown = missing("customer", str(query["customer"]))
            raise StripeApiError(
                self.ways.summaries_of_unknown, str(unknown), code="resource_missing", param="customer"
            )
        own = self.counted.of(meter_id, query["customer"])
        seen = [event for event in own if event.created + self.ways.summaries_lag_s <= self.now()]
        found = summaries(meter, seen, start, end, grouping)
        return list_page(found, query, f"/v1/billing/meters/{meter_id}/event_summaries")

    def list_reports(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v2/core/events."""
        return self.reports.list_all(query, self.now())

    def open_session(self) -> dict[str, Any]:
        """POST /v2/billing/meter_event_session: a token for the stream."""
        return self._sessions.open(self.now())

    def stream(self, token: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v2/billing/meter_event_stream: answers at once, finds fault later."""
        self._sessions.check(token, self.now())
        events = body.get("events")
        if not isinstance(events, list) or not 1 <= len(events) <= STREAM_EVENTS_MAX:
            raise StripeApiError(400, f"events: 1 to {STREAM_EVENTS_MAX} are expected.", param="events")
        for given in events:
            try:
                self.add_event(from_v2(given), is_stream=True)
            except StripeApiError as refused:
                self._set_aside_unread(given, refused)
        return {}

    def _set_aside_unread(self, given: Any, refused: StripeApiError) -> None:
        """What a stream's 200 does not say either."""
        known = given if isinstance(given, dict) else {}
        name, identifier = str(known.get("event_name")), str(known.get("identifier"))
        meter = self._active(name)
        code = self._missing_meter(name) if meter is None else refused.late_code or INVALID_VALUE
        one = UncountedEvent(
            self.now(), code, str(refused), identifier, name, None, None if meter is None else meter.id
        )
        self.reports.uncounted.append(one)

    def _active(self, event_name: str) -> Meter | None:
        found = [m for m in self.meters.values() if m.event_name == event_name and m.status == "active"]
        return found[0] if found else None


def _inner(form: dict[str, Any], outer: str, name: str) -> Any:
    node = form.get(outer)
    return node.get(name) if isinstance(node, dict) else None
