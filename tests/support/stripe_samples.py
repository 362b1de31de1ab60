"""Bodies of Stripe as vendor pages, SDK tests and productions show them: members, types and formatting are theirs, the
values are invented.

Pages of docs.stripe.com: api/billing/meter-event/create, api/billing/meter-event-summary/list, api/v2/core/events,
billing/subscriptions/usage-based/recording-usage-in-bulk. The notification: Stripe's .NET SDK tests. The duplicate:
langfuse/langfuse PR 16292. Too old: theanswerai/theanswer PR 624.
"""

import re
from copy import deepcopy
from typing import Any, Final

METER_EVENT: Final[dict[str, Any]] = {
    "object": "billing.meter_event",
    "created": 1795392001,
    "event_name": "openai_usage_micro_usd",
    "identifier": "openai_usage_micro_usd:cus_sample:1795388400:0",
    "livemode": True,
    "payload": {"value": "1235", "stripe_customer_id": "cus_sample"},
    "timestamp": 1795391999,
}
SUMMARIES: Final[dict[str, Any]] = {
    "object": "list",
    "data": [
        {
            "id": "mtrusg_sample_b",
            "object": "billing.meter_event_summary",
            "aggregated_value": 1235,
            "end_time": 1795392000,
            "livemode": False,
            "meter": "mtr_sample",
            "start_time": 1795388400,
        },
        {
            "id": "mtrusg_sample_a",
            "object": "billing.meter_event_summary",
            "aggregated_value": 40,
            "end_time": 1795381200,
            "livemode": False,
            "meter": "mtr_sample",
            "start_time": 1795377600,
        },
    ],
}
NOTIFICATION: Final[dict[str, Any]] = {
    "id": "evt_sample",
    "object": "v2.core.event",
    "type": "v1.billing.meter.error_report_triggered",
    "livemode": False,
    "created": "2026-11-23T00:00:12.330Z",
    "context": None,
    "related_object": {"id": "mtr_sample", "type": "billing.meter", "url": "/v1/billing/meters/mtr_sample"},
}


def duplicate(identifier: str) -> dict[str, Any]:
    """The body of the 400 for an identifier that was seen; no code."""
    message = f"An event already exists with identifier {identifier}."
    return {"error": {"type": "invalid_request_error", "message": message}}


def too_old(least: int) -> dict[str, Any]:
    """The body of the 400 for an instant before `least`, Unix seconds."""
    message = (
        "The event timestamp cannot be more than 35 days in past. "
        f"Expected a timestamp greater than or equal to {least}."
    )
    return {"error": {"type": "invalid_request_error", "message": message}}


def _report(kind: str, code: str, message: str, related: dict[str, str]) -> dict[str, Any]:
    sample = {"error_message": message, "request": {"identifier": "openai_usage_micro_usd:cus_sample:1795388400:0"}}
    return {
        "id": "evt_sample",
        "object": "v2.core.event",
        "context": None,
        "created": "2026-11-23T00:00:12.134Z",
        "data": {
            "developer_message_summary": "There is 1 invalid event",
            "reason": {
                "error_count": 1,
                "error_types": [{"code": code, "error_count": 1, "sample_errors": [sample]}],
            },
            "validation_end": "2026-11-23T00:00:10.000Z",
            "validation_start": "2026-11-23T00:00:00.000Z",
        },
        "livemode": False,
        "reason": None,
        "related_object": related,
        "type": kind,
    }


ERROR_REPORT: Final = _report(
    "v1.billing.meter.error_report_triggered",
    "meter_event_no_customer_defined",
    "Customer mapping key stripe_customer_id not found in payload.",
    {"id": "mtr_sample", "type": "billing.meter", "url": "/v1/billing/meters/mtr_sample"},
)
NO_METER: Final = _report(
    "v1.billing.meter.no_meter_found", "no_meter", "No meter was found matching event_name other.", {}
)


def with_request(request: dict[str, str]) -> dict[str, Any]:
    """The error report with another `request` in its sample error."""
    report = deepcopy(ERROR_REPORT)
    report["data"]["reason"]["error_types"][0]["sample_errors"][0]["request"] = request
    return report


_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def outline(value: Any) -> Any:
    """Members, types and formats without the values, for comparing."""
    if isinstance(value, dict):
        return {name: outline(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [outline(each) for each in value]
    return "instant" if isinstance(value, str) and _INSTANT.fullmatch(value) else type(value).__name__
