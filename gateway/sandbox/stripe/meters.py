"""Meters and their events as the Stripe stand-in counts them (Stripe's docs). Values are exact decimals.

`Refused` is every error that Stripe answers, with what its SDK reads of it.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

HOUR_S: Final = 3600
DAY_S: Final = 86_400
PAST_S: Final = 35 * DAY_S
FUTURE_S: Final = 300
DIGITS_MAX: Final = 15
EMBEDDED_MAX: Final = 10
INVALID_VALUE: Final = "meter_event_invalid_value"
WINDOWS: Final = {"hour": HOUR_S, "day": DAY_S}
_VALUE: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_WHOLE: Final = re.compile(r"[0-9]{1,15}")


class StripeApiError(Exception):
    """A request that Stripe answers with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        v2_code: str | None = None,
        late_code: str | None = None,
    ) -> None:
        """`v2_code`: what v2 calls it, where v1 says nothing (stripe/openapi, `v2.error.…`); `late_code`: what an
        error report calls it, where it is found out late (stripe-python 16.1, V1BillingMeterErrorReportTriggered)."""
        super().__init__(message)
        self.v2_code: Final = v2_code
        self.late_code: Final = late_code
        self.status: Final = status
        self.headers: Final = dict(headers or {})
        fields = {"type": kind, "message": message, "code": code, "param": param}
        self.error: Final = {name: value for name, value in fields.items() if value is not None}


def missing(what: str, object_id: str, hint: str = "") -> StripeApiError:
    """The 404 for an object that this key does not see."""
    return StripeApiError(404, f"No such {what}: '{object_id}'{hint}", code="resource_missing", param="id")


def list_page(items: list[dict[str, Any]], query: dict[str, Any], url: str) -> dict[str, Any]:
    """A page of a v1 list (docs.stripe.com, api/pagination). Raises StripeApiError (400)."""
    ids = [item["id"] for item in items]
    limit = whole_number(query.get("limit", "10"), "limit")
    if not 1 <= limit <= 100:
        raise StripeApiError(400, "Invalid limit: an integer from 1 to 100 is expected.", param="limit")
    cursors = [name for name in ("starting_after", "ending_before") if name in query]
    if len(cursors) > 1:
        raise StripeApiError(400, f"You may only specify one of these parameters: {', '.join(cursors)}.")
    for name in cursors:
        if query[name] not in ids:
            raise StripeApiError(400, f"No such object: '{query[name]}'", code="resource_missing", param=name)
    if "ending_before" in query:
        end = ids.index(query["ending_before"])
        start = max(0, end - limit)
        return {"object": "list", "data": items[start:end], "has_more": start > 0, "url": url}
    start = ids.index(query["starting_after"]) + 1 if cursors else 0
    end = start + limit
    return {"object": "list", "data": items[start:end], "has_more": end < len(items), "url": url}


def shorten_lists(node: Any) -> Any:
    """An object as it is told: of a list inside of it the first ten, and whether there are more. docs.stripe.com,
    api/invoices/invoice_lines: "the first handful of those items"; that it is ten is what integrators see."""
    if isinstance(node, list):
        return [shorten_lists(each) for each in node]
    if not isinstance(node, dict):
        return node
    told = {name: shorten_lists(value) for name, value in node.items()}
    if node.get("object") == "list" and "total_count" in node and len(node["data"]) > EMBEDDED_MAX:
        told |= {"data": told["data"][:EMBEDDED_MAX], "has_more": True}
    return told


class Meter(msgspec.Struct):
    """One meter; immutable but for its name and status."""

    id: str
    created: int
    updated: int
    display_name: str
    event_name: str
    formula: str = "sum"
    customer_key: str = "stripe_customer_id"
    value_key: str = "value"
    window: str | None = None
    status: str = "active"
    deactivated_at: int | None = None

    def form(self) -> dict[str, Any]:
        """As Stripe shows it."""
        return {
            "id": self.id,
            "object": "billing.meter",
            "created": self.created,
            "customer_mapping": {"event_payload_key": self.customer_key, "type": "by_id"},
            "default_aggregation": {"formula": self.formula},
            "display_name": self.display_name,
            "event_name": self.event_name,
            "event_time_window": self.window,
            "livemode": False,
            "status": self.status,
            "status_transitions": {"deactivated_at": self.deactivated_at},
            "updated": self.updated,
            "value_settings": {"event_payload_key": self.value_key},
        }


class AcceptedEvent(msgspec.Struct):
    """One accepted event. Instants are Unix seconds."""

    identifier: str
    event_name: str
    meter: str
    customer: str
    value: str
    """As it was sent."""
    timestamp: int
    created: int
    payload: dict[str, str]
    cancelled: bool = False

    def form(self) -> dict[str, Any]:
        """As Stripe answers it."""
        return {
            "object": "billing.meter_event",
            "created": self.created,
            "event_name": self.event_name,
            "identifier": self.identifier,
            "livemode": False,
            "payload": self.payload,
            "timestamp": self.timestamp,
        }


def whole_number(given: Any, param: str) -> int:
    """A parameter that is a whole number, not negative. Raises StripeApiError (400)."""
    if not isinstance(given, str) or not _WHOLE.fullmatch(given):
        raise StripeApiError(400, f"Invalid integer: {param}", code="parameter_invalid_integer", param=param)
    return int(given)


def check_event(meter: Meter, payload: Any, identifier: str, timestamp: int, now: int) -> AcceptedEvent:
    """The event, when Stripe would take it at once. Raises StripeApiError (400)."""
    if not isinstance(payload, dict) or not all(isinstance(value, str) for value in payload.values()):
        raise StripeApiError(400, "Invalid payload: a map of strings is expected.", param="payload")
    customer, value = payload.get(meter.customer_key), payload.get(meter.value_key)
    if not customer:
        # The words that the error report of docs.stripe.com has for it.
        message = f"Customer mapping key {meter.customer_key} not found in payload."
        raise StripeApiError(
            400,
            message,
            param="payload",
            v2_code="payload_no_customer_defined",
            late_code="meter_event_no_customer_defined",
        )
    if meter.formula != "count" and value is None:
        message = f"Missing payload key: {meter.value_key}."
        late_code = "meter_event_value_not_found"
        raise StripeApiError(400, message, param="payload", v2_code="payload_no_value_defined", late_code=late_code)
    if value is not None and not _VALUE.fullmatch(value):
        message = f"Invalid value '{value}': a decimal number is expected."
        raise StripeApiError(400, message, param="payload", v2_code="payload_invalid_value", late_code=INVALID_VALUE)
    if len((value or "0").lstrip("-0.").replace(".", "")) > DIGITS_MAX:
        message = f"Invalid value: more than {DIGITS_MAX} significant digits."
        late_code = "meter_event_value_too_many_digits"
        raise StripeApiError(400, message, param="payload", v2_code="payload_invalid_value", late_code=late_code)
    if not 1 <= len(identifier) <= 100:
        raise StripeApiError(400, "Invalid identifier: 1 to 100 characters are expected.", param="identifier")
    if timestamp > now + FUTURE_S:
        message = "The timestamp may not be more than 5 minutes in the future."
        raise StripeApiError(400, message, param="timestamp", late_code="timestamp_in_future")
    if timestamp < now - PAST_S:
        # As production has it (theanswerai/theanswer PR 624): no param, and the lowest instant that is taken.
        least = f"Expected a timestamp greater than or equal to {now - PAST_S}."
        message = f"The event timestamp cannot be more than 35 days in past. {least}"
        raise StripeApiError(400, message, late_code="timestamp_too_far_in_past")
    return AcceptedEvent(identifier, meter.event_name, meter.id, customer, value or "1", timestamp, now, payload)


def summaries(
    meter: Meter, events: list[AcceptedEvent], start: int, end: int, grouping: str | None
) -> list[dict[str, Any]]:
    """One figure per window that has events, or one for all of them; `end` is exclusive."""
    step = WINDOWS[grouping] if grouping else max(1, end - start)
    windows: dict[int, list[AcceptedEvent]] = {}
    for event in events:
        if start <= event.timestamp < end and not event.cancelled:
            windows.setdefault(start + (event.timestamp - start) // step * step, []).append(event)
    return [
        {
            "id": f"mtrusg_{meter.id}_{opened}",
            "object": "billing.meter_event_summary",
            "aggregated_value": msgspec.Raw(str(aggregate(meter, windows[opened])).encode()),
            "start_time": opened,
            "end_time": min(end, opened + step),
            "livemode": False,
            "meter": meter.id,
        }
        for opened in sorted(windows, reverse=True)
    ]


def aggregate(meter: Meter, events: list[AcceptedEvent]) -> Decimal:
    """What the events come to, in order of arrival; with an event window, the newest of each window stands for it."""
    if meter.window is not None:
        events = list({event.timestamp // WINDOWS[meter.window]: event for event in events}.values())
    values = [Decimal(event.value) for event in events]
    if meter.formula == "count":
        return Decimal(len(values))
    return values[-1] if values and meter.formula == "last" else sum(values, Decimal(0))
