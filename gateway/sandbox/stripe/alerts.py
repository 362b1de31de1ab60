"""Usage alerts of the Stripe stand-in.

docs.stripe.com, usage-based/alerts: looked at when usage arrives after the alert was made, but usage from before it
counts too; at most 25 for a meter and customer. Members: stripe-python 16.1, `billing.Alert`, `billing.AlertTriggered`.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from gateway.sandbox.stripe.counted import CountedEvents
from gateway.sandbox.stripe.meters import AcceptedEvent, Meter, StripeApiError, aggregate, list_page, whole_number
from gateway.sandbox.stripe.objects import Account, Stored
from gateway.sandbox.stripe.params import check_known, read_choice, read_list, read_map, require

KIND: Final = "billing.alert"
ALERTS_MAX: Final = 25
_TRIGGERED: Final = "sandbox.alerted"
"""Which alert has been triggered for which customers: each once."""


class Alerts:
    """All alerts."""

    def __init__(self, account: Account, meter: Callable[[str], Meter], events: CountedEvents) -> None:
        self._account: Final = account
        self._meter: Final = meter
        self._events: Final = events

    def create(self, form: dict[str, Any]) -> Stored:
        """POST /v1/billing/alerts."""
        check_known(form, ("alert_type", "title", "usage_threshold"))
        read_choice(form, "alert_type", ("usage_threshold",), "")
        threshold = read_map(form, "usage_threshold")
        check_known(threshold, ("filters", "gte", "meter", "recurrence"))
        meter = self._meter(str(require(threshold, "meter")))
        read_choice(threshold, "recurrence", ("one_time",), "")
        filters = [dict(one) for one in read_list(threshold, "filters") if isinstance(one, dict)]
        if len(filters) > 1 or any(one.keys() != {"type", "customer"} for one in filters):
            raise StripeApiError(400, "At most one filter by customer is expected.", param="usage_threshold[filters]")
        same = [one for one in self._active(meter.id) if one["usage_threshold"]["filters"] == (filters or None)]
        if len(same) >= ALERTS_MAX:
            raise StripeApiError(400, f"A meter and customer can have {ALERTS_MAX} alerts at most.")
        made = self._account.add(
            KIND,
            "alrt",
            {
                "alert_type": "usage_threshold",
                "status": "active",
                "title": str(require(form, "title")),
                "usage_threshold": {
                    "filters": filters or None,
                    "gte": whole_number(require(threshold, "gte"), "usage_threshold[gte]"),
                    "meter": meter.id,
                    "recurrence": "one_time",
                },
            },
        )
        del made["created"]  # an alert does not say when it was made
        return made

    def set_status(self, alert_id: str, status: str) -> Stored:
        """POST /v1/billing/alerts/{id}/activate, /deactivate and /archive; what is archived stays so."""
        found = self._account.get(KIND, alert_id)
        if found["status"] in ("archived", status):
            raise StripeApiError(400, f"The alert is {found['status']} already.")
        found["status"] = status
        return found

    def list_all(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/billing/alerts: without the archived."""
        found = [
            one
            for one in self._account.all(KIND)
            if one["status"] != "archived" and query.get("meter") in (None, one["usage_threshold"]["meter"])
        ]
        return list_page(found, query, "/v1/billing/alerts")

    def look(self, event: AcceptedEvent) -> None:
        """Triggers what this event has brought over its threshold."""
        for alert in self._active(event.meter):
            threshold = alert["usage_threshold"]
            others = threshold["filters"] is not None and threshold["filters"][0]["customer"] != event.customer
            known = self._account.kinds.setdefault(_TRIGGERED, {}).setdefault(alert["id"], {"customers": []})
            if others or event.customer in known["customers"]:
                continue
            own = [one for one in self._events.of(event.meter, event.customer) if not one.cancelled]
            used = aggregate(self._meter(event.meter), own)
            if used >= Decimal(threshold["gte"]):
                known["customers"].append(event.customer)
                self._tell(alert, event.customer, used)

    def _tell(self, alert: Stored, customer: str, used: Decimal) -> None:
        about = {
            "object": "billing.alert_triggered",
            "alert": alert,
            "created": self._account.now(),
            "customer": customer,
            "livemode": False,
            "value": int(used),
        }
        self._account.tell("billing.alert.triggered", about)

    def _active(self, meter_id: str) -> list[Stored]:
        return [
            one
            for one in self._account.all(KIND)
            if one["status"] == "active" and one["usage_threshold"]["meter"] == meter_id
        ]
