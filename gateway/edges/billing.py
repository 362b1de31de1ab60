"""Stripe: meter events out, and the little administration that they need. One try per call, never a retry of its own.

Which row is sent when, and what an outcome means for it, is decided elsewhere. The secret key must not appear in an
error or a log. Facts: facts/stripe.md §1–§3, §7.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import aiohttp
import stripe

from gateway.core.billing import Delivered, Duplicate, MeterEvent, Outcome, Refused, Rejected, Retry, unix_seconds
from gateway.core.errors import ConfigError, DependencyDown

_DUPLICATE: Final = "An event already exists with identifier"
_CUSTOMER_KEY: Final = "stripe_customer_id"
_VALUE_KEY: Final = "value"
_LOST: Final = (aiohttp.ClientError, TimeoutError, OSError)
"""What the SDK lets through when an answer breaks off in its body."""
_NEVER_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""No connection was made, so no byte of the request can have arrived."""


class Billing:
    """Stripe over the SDK with aiohttp. Call `close` at shutdown."""

    def __init__(
        self, secret_key: str, *, base_url: str, timeout_s: float = 10.0, session: aiohttp.ClientSession | None = None
    ) -> None:
        """`base_url` without a trailing path; `timeout_s` bounds one call in all, seconds.

        `session` stays the caller's; without one Billing has its own.
        """
        # The SDK has this switch for the whole process only; on, it writes a file into the home directory and sends
        # the platform and the timing of other calls along.
        stripe.enable_telemetry = False
        self._http: Final = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=timeout_s), session=session)
        self.base_url: Final = base_url.rstrip("/")
        self._client: Final = stripe.StripeClient(
            secret_key,
            base_addresses={"api": self.base_url, "meter_events": self.base_url},
            http_client=self._http,
            max_network_retries=0,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the SDK leaves it unannotated

    async def send(self, event: MeterEvent) -> Outcome:
        """Sends one meter event and says what became of it. Raises nothing that Stripe or the network causes.

        The identifier is also the idempotency key. Stripe replays a stored 500 to the same key for a day (Stripe
        docs, idempotent requests), so an answer that is such a replay is asked for once more under a fresh key: the
        identifier alone keeps the event from being counted twice.
        """
        outcome, replayed = await self._send(event, {"idempotency_key": event.identifier})
        if replayed:
            outcome, _ = await self._send(event, {})
        return outcome

    async def _send(self, event: MeterEvent, options: Any) -> tuple[Outcome, bool]:
        """The outcome, and whether it is a stored failure played back."""
        try:
            await self._client.v1.billing.meter_events.create_async(
                {
                    "event_name": event.event_name,
                    "identifier": event.identifier,
                    "payload": {_CUSTOMER_KEY: event.customer, _VALUE_KEY: str(event.value)},
                    "timestamp": unix_seconds(event.timestamp),
                },
                options,
            )
        except stripe.StripeError as error:
            outcome = outcome_of(error)
            replayed = (error.headers or {}).get("idempotent-replayed") == "true"
            return outcome, replayed and isinstance(outcome, Retry)
        except _LOST as error:
            return Retry(f"the answer broke off: {type(error).__name__}", None, in_doubt=True), False
        return Delivered(), False

    async def ensure_meter(self, event_name: str) -> str:
        """The id of the active meter for `event_name`, made if there is none.

        Raises ConfigError when the meter that exists would count wrongly or the key is refused, DependencyDown when
        Stripe does not answer.
        """
        try:
            meter = await self._meter(event_name)
            if meter is None:
                meter = await self._client.v1.billing.meters.create_async(
                    {
                        "display_name": "OpenAI usage (micro-USD)",
                        "event_name": event_name,
                        "default_aggregation": {"formula": "sum"},
                        "customer_mapping": {"type": "by_id", "event_payload_key": _CUSTOMER_KEY},
                        "value_settings": {"event_payload_key": _VALUE_KEY},
                    }
                )
        except stripe.StripeError as error:
            raise _administration_failed(error) from error
        except _LOST as error:
            raise DependencyDown("stripe", type(error).__name__) from error
        problems = meter_problems(meter)
        if problems:
            raise ConfigError(f"Stripe meter {event_name!r}: {'; '.join(problems)}")
        return str(meter.id)

    async def check(self, event_name: str) -> tuple[str, ...]:
        """What is wrong with the Stripe side, one sentence each with how to mend it; empty when all is well.

        Reads only. Raises DependencyDown when Stripe does not answer.
        """
        try:
            meter = await self._meter(event_name)
        except stripe.StripeError as error:
            failed = _administration_failed(error)
            if isinstance(failed, DependencyDown):
                raise failed from error
            return (str(failed),)
        except _LOST as error:
            raise DependencyDown("stripe", type(error).__name__) from error
        if meter is None:
            return (
                f"Stripe has no active meter with event_name {event_name!r}: every event would be rejected. "
                "Make it (formula sum), or set billing.meter_event_name to the one you have.",
            )
        return meter_problems(meter)

    async def counted(
        self, event_name: str, customer: str, since: datetime, until: datetime
    ) -> dict[datetime, Decimal]:
        """What Stripe has counted of a customer, micro-USD by UTC hour; `since` and `until` are whole hours.

        Summaries lag behind by some minutes. Raises ConfigError when the key is refused or there is no such meter,
        DependencyDown when Stripe does not answer.
        """
        found: dict[datetime, Decimal] = {}
        try:
            meter = await self._meter(event_name)
            if meter is None:
                raise ConfigError(f"Stripe has no active meter with event_name {event_name!r}")
            page = await self._client.v1.billing.meters.event_summaries.list_async(
                meter.id,
                {
                    "customer": customer,
                    "start_time": unix_seconds(since),
                    "end_time": unix_seconds(until),
                    "value_grouping_window": "hour",
                    "limit": 100,
                },
            )
            async for summary in page.auto_paging_iter():
                hour = datetime.fromtimestamp(summary.start_time, UTC)
                found[hour] = found.get(hour, Decimal(0)) + Decimal(str(summary.aggregated_value))
        except stripe.StripeError as error:
            raise _administration_failed(error) from error
        except _LOST as error:
            raise DependencyDown("stripe", type(error).__name__) from error
        return found

    async def create_customer(self, user_id: str, email: str) -> str:
        """A Stripe customer for a user of ours; asked again for the same user within a day, the same customer.

        Returns its id. Raises ConfigError when the key is refused, DependencyDown when Stripe does not answer.
        """
        try:
            customer = await self._client.v1.customers.create_async(
                {"email": email, "metadata": {"user_id": user_id}}, {"idempotency_key": f"customer:{user_id}"}
            )
        except stripe.StripeError as error:
            raise _administration_failed(error) from error
        except _LOST as error:
            raise DependencyDown("stripe", type(error).__name__) from error
        return customer.id

    async def _meter(self, event_name: str) -> Any:
        page = await self._client.v1.billing.meters.list_async({"status": "active", "limit": 100})
        async for meter in page.auto_paging_iter():
            if meter.event_name == event_name:
                return meter
        return None


def outcome_of(error: stripe.StripeError) -> Outcome:
    """What an error of the SDK means for the event that was sent (facts/stripe.md §7)."""
    message = error.user_message or type(error).__name__
    status = error.http_status
    headers = error.headers or {}
    if isinstance(error, stripe.APIConnectionError) or status is None:
        never_sent = isinstance(error.__cause__, _NEVER_SENT)
        cause = type(error.__cause__ or error).__name__
        return Retry(f"no answer from Stripe: {cause}", None, in_doubt=not never_sent)
    if status == 400 and message.startswith(_DUPLICATE):
        return Duplicate()
    if status in (401, 403):
        # Not Stripe's own words: its message repeats part of the key.
        return Refused(f"Stripe answered {status}: check STRIPE_SECRET_KEY and what it may do")
    if status == 429:
        return Retry(f"429: {message}", _seconds(headers.get("retry-after")), in_doubt=False)
    if status == 409 or status >= 500 or headers.get("stripe-should-retry") == "true":
        return Retry(f"{status}: {message}", _seconds(headers.get("retry-after")), in_doubt=True)
    return Rejected(f"{status}: {message}")


def meter_problems(meter: Any) -> tuple[str, ...]:
    """Why an existing meter would not add up our events; empty when it would."""
    problems = []
    if meter.default_aggregation.formula != "sum":
        problems.append(f"its formula is {meter.default_aggregation.formula!r} and must be 'sum'")
    if meter.event_time_window is not None:
        problems.append("it keeps only the newest event of a time window (event_time_window must be empty)")
    if meter.customer_mapping.event_payload_key != _CUSTOMER_KEY:
        problems.append(f"its customer key must be {_CUSTOMER_KEY!r}")
    if meter.value_settings.event_payload_key != _VALUE_KEY:
        problems.append(f"its value key must be {_VALUE_KEY!r}")
    return tuple(f"{problem}; a meter cannot be changed, so make another one" for problem in problems)


def _administration_failed(error: stripe.StripeError) -> ConfigError | DependencyDown:
    outcome = outcome_of(error)
    if isinstance(outcome, Retry):
        return DependencyDown("stripe", outcome.reason)
    return ConfigError(outcome.reason if isinstance(outcome, Refused | Rejected) else str(outcome))


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; None when absent or a date, which Stripe does not send."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
