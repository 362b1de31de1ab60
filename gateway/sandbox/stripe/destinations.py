"""Where the Stripe stand-in tells what happens, through its API: webhook endpoints of v1, event destinations of v2.

Members, and what is shown when: stripe-python 16.1, `WebhookEndpoint` and `v2.core.EventDestination`. The signing
secret is in the answer that makes one and in no other; v2 shows it, and the URL, only to who asks by `include`. Neither
list has the objects of the other API. Sends to loopback only: another URL is kept, and told of nothing.
"""

import secrets
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.sandbox.stripe.meters import StripeApiError, list_page
from gateway.sandbox.stripe.objects import Account, Stored
from gateway.sandbox.stripe.params import (
    check_known,
    read_choice,
    read_flag,
    read_list,
    read_map,
    read_metadata,
    require,
)
from gateway.sandbox.stripe.v2 import rfc3339, v2_page
from gateway.sandbox.stripe.webhooks import LOOPBACK, Deliveries, WebhookEndpoint

ENDPOINT: Final = "webhook_endpoint"
DESTINATION: Final = "v2.core.event_destination"
SIGNING: Final = "sandbox.signing"
"""A kind that Stripe does not have: what an endpoint's webhooks are signed with."""
COUNT_MAX: Final = 16
"""Of one account (docs.stripe.com, webhooks)."""
THIN: Final = ("v1.", "v2.")
"""How the types of thin events begin."""
SHOWN: Final = ("webhook_endpoint.url", "webhook_endpoint.signing_secret")
"""What `include` may ask for."""


class Destinations:
    """Both kinds."""

    def __init__(self, account: Account, deliveries: Deliveries) -> None:
        self._account: Final = account
        self._deliveries: Final = deliveries

    def resume(self) -> None:
        """Goes on telling those of a former run."""
        for kind in (ENDPOINT, DESTINATION):
            for one in self._account.all(kind):
                self._listen(one)

    def create_endpoint(self, form: dict[str, Any]) -> Stored:
        """POST /v1/webhook_endpoints."""
        check_known(form, ("url", "enabled_events", "description", "metadata", "api_version"))
        self._check_room()
        fields = {
            "api_version": form.get("api_version"),
            "application": None,
            "description": form.get("description") or None,
            "enabled_events": _events(form, is_thin=False),
            "metadata": read_metadata(form, {}),
            "status": "enabled",
            "url": _url(require(form, "url")),
        }
        made = self._account.add(ENDPOINT, "we", fields)
        return made | {"secret": self._sign_with_new_secret(made)}

    def list_endpoints(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/webhook_endpoints."""
        return list_page(self._account.all(ENDPOINT), query, "/v1/webhook_endpoints")

    def update_endpoint(self, endpoint_id: str, form: dict[str, Any]) -> Stored:
        """POST /v1/webhook_endpoints/{id}."""
        check_known(form, ("url", "enabled_events", "description", "metadata", "disabled"))
        found = self._account.get(ENDPOINT, endpoint_id)
        if "url" in form:
            found["url"] = _url(form["url"])
        if "enabled_events" in form:
            found["enabled_events"] = _events(form, is_thin=False)
        if "description" in form:
            found["description"] = form["description"] or None
        disabled = read_flag(form, "disabled", found["status"] == "disabled")
        found |= {"metadata": read_metadata(form, found["metadata"]), "status": "disabled" if disabled else "enabled"}
        self._listen(found)
        return found

    def delete(self, kind: str) -> Callable[[str], Stored]:
        """DELETE of either kind, by id."""

        def run(object_id: str) -> Stored:
            deleted = self._account.remove(kind, object_id)
            self._deliveries.forget(object_id)
            return deleted

        return run

    def create_destination(self, body: dict[str, Any]) -> Stored:
        """POST /v2/core/event_destinations."""
        known = ("name", "type", "event_payload", "enabled_events", "events_from", "description", "metadata")
        check_known(body, (*known, "snapshot_api_version", "webhook_endpoint", "include"))
        self._check_room()
        for name in ("name", "type", "event_payload"):
            require(body, name)
        read_choice(body, "type", ("webhook_endpoint",), "")
        payload = read_choice(body, "event_payload", ("snapshot", "thin"), "")
        if payload == "thin" and "snapshot_api_version" in body:
            raise StripeApiError(400, "snapshot_api_version is for snapshots only.", param="snapshot_api_version")
        now = rfc3339(self._account.now())
        fields = {
            "amazon_eventbridge": None,
            "azure_event_grid": None,
            "created": now,
            "description": body.get("description") or "",
            "enabled_events": _events(body, is_thin=payload == "thin"),
            "event_payload": payload,
            "events_from": body.get("events_from") or ["@self"],
            "metadata": body.get("metadata") or {},
            "name": body["name"],
            "snapshot_api_version": body.get("snapshot_api_version"),
            "status": "enabled",
            "status_details": None,
            "type": body["type"],
            "updated": now,
            "webhook_endpoint": {"url": _url(require(read_map(body, "webhook_endpoint"), "url"))},
        }
        made = self._account.add(DESTINATION, "ed", fields)
        shown = self._shown(made, body)
        signed = self._sign_with_new_secret(made)
        if SHOWN[1] in read_list(body, "include"):
            shown["webhook_endpoint"]["signing_secret"] = signed
        return shown

    def get_destination(self, destination_id: str, query: dict[str, Any]) -> Stored:
        """GET /v2/core/event_destinations/{id}."""
        return self._shown(self._account.get(DESTINATION, destination_id), query)

    def list_destinations(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v2/core/event_destinations."""
        found = [self._shown(one, query) for one in self._account.all(DESTINATION)]
        return v2_page(found, query, "/v2/core/event_destinations")

    def update_destination(self, destination_id: str, body: dict[str, Any]) -> Stored:
        """POST /v2/core/event_destinations/{id}."""
        check_known(body, ("name", "description", "enabled_events", "webhook_endpoint", "include"))
        found = self._account.get(DESTINATION, destination_id)
        fields: Stored = {name: body[name] for name in ("name", "description") if name in body}
        if "enabled_events" in body:
            fields["enabled_events"] = _events(body, is_thin=found["event_payload"] == "thin")
        if "webhook_endpoint" in body:
            fields["webhook_endpoint"] = {"url": _url(require(read_map(body, "webhook_endpoint"), "url"))}
        return self._changed(found, fields, body)

    def set_status(self, status: str) -> Callable[[str], Stored]:
        """POST /v2/core/event_destinations/{id}/enable and /disable."""

        def run(destination_id: str) -> Stored:
            details = None if status == "enabled" else {"disabled": {"reason": "user"}}
            fields = {"status": status, "status_details": details}
            return self._changed(self._account.get(DESTINATION, destination_id), fields, {})

        return run

    def _changed(self, found: Stored, fields: Stored, body: dict[str, Any]) -> Stored:
        found |= fields | {"updated": rfc3339(self._account.now())}
        self._listen(found)
        return self._shown(found, body)

    def _shown(self, found: Stored, given: dict[str, Any]) -> Stored:
        url = found["webhook_endpoint"]["url"] if SHOWN[0] in read_list(given, "include") else None
        return found | {"webhook_endpoint": {"signing_secret": None, "url": url}}

    def _check_room(self) -> None:
        if sum(len(self._account.all(kind)) for kind in (ENDPOINT, DESTINATION)) >= COUNT_MAX:
            raise StripeApiError(400, f"You have reached the maximum of {COUNT_MAX} webhook endpoints.")

    def _sign_with_new_secret(self, made: Stored) -> str:
        signed = f"whsec_{secrets.token_hex(16)}"
        self._account.kinds.setdefault(SIGNING, {})[made["id"]] = {"secret": signed}
        self._listen(made)
        return signed

    def _listen(self, found: Stored) -> None:
        """Tells it of what happens from now on, as it is now."""
        self._deliveries.forget(found["id"])
        url = found["url"] if found["object"] == ENDPOINT else found["webhook_endpoint"]["url"]
        if found["status"] != "enabled" or urlsplit(url).hostname not in LOOPBACK:
            return
        events = found["enabled_events"]
        self._deliveries.add(
            WebhookEndpoint(
                url,
                self._account.kinds[SIGNING][found["id"]]["secret"],
                "thin" if found.get("event_payload") == "thin" else "snapshot",
                [] if events == ["*"] else events,
                auto=True,
                id=found["id"],
            )
        )


def _events(given: dict[str, Any], *, is_thin: bool) -> list[str]:
    """The types. Snapshots and thin events have different ones, and no API takes a part of a name and `*`."""
    types = [str(one) for one in read_list(given, "enabled_events")]
    wrong = [one for one in types if one != "*" and (one.startswith(THIN) != is_thin or "*" in one)]
    if wrong or not types:
        message = f"Invalid enabled_events: {wrong[0]}" if wrong else "Missing required param: enabled_events."
        raise StripeApiError(400, message, param="enabled_events")
    return types


def _url(given: Any) -> str:
    """Live mode takes HTTPS only, a sandbox HTTP as well (stripe-python 16.1)."""
    if not isinstance(given, str) or urlsplit(given).scheme not in ("http", "https") or not urlsplit(given).hostname:
        raise StripeApiError(400, "Invalid URL: an explicit scheme (such as https) must be provided.", param="url")
    return given
