"""Stripe: meter events out, and the little administration that they need. One try per call, never a retry of its own.

Which row is sent when, and what an outcome means for it, is decided elsewhere. The secret key must not appear in an
error or a log. Basis: Stripe's docs and its SDK, stripe-python 16.1.
"""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import aiohttp
import stripe

from gateway.billing.stripe_answers import CUSTOMER_KEY, VALUE_KEY, member, meter_problems, outcome_of, translate_error
from gateway.billing.stripe_http import Http
from gateway.billing.stripe_samples import sample_identifier
from gateway.billing.windows import (
    Customer,
    Delivered,
    Duplicate,
    MeterEvent,
    MeterRefused,
    Rejected,
    Retry,
    StripeAnswer,
    Uncounted,
    identifier_prefix,
    unix_seconds,
)
from gateway.kit.errors import ConfigError, DependencyDown, OptionError
from gateway.kit.instants import rfc3339

REPORTS: Final = ("v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found")
REPORTS_MAX: Final = 200
"""Error reports read at most."""
_REPLAYED: Final = "idempotent-replayed"
"""The header that marks a replayed answer; what the answer describes may be gone by now."""
_OTHER_MODE: Final = "a similar object exists in"
"""Stripe's words for a customer of the other mode (woocommerce/woocommerce-gateway-stripe issue 3109)."""


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
        self._http: Final = Http(session, aiohttp.ClientTimeout(total=timeout_s))
        self.base_url: Final = base_url.rstrip("/")
        self.use_key(secret_key)

    def use_key(self, secret_key: str) -> None:
        """Calls from now on are made with this key, which may be another account's."""
        self._is_live = "_test_" not in secret_key[:8]
        self._account: str | None = None
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": self.base_url, "meter_events": self.base_url},
            http_client=self._http,
            max_network_retries=0,
        )

    @property
    def client(self) -> stripe.StripeClient:
        """The SDK with the key that is used now, for what else is read of Stripe (mirror/read.py)."""
        return self._client

    @property
    def is_live(self) -> bool:
        """Whether the key is of live mode."""
        return self._is_live

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.close_async()

    async def deliver(self, event: MeterEvent) -> StripeAnswer:
        """Sends one meter event and says what became of it. Raises nothing that Stripe or the network causes.

        The identifier is also the idempotency key. Stripe plays a stored answer back to the same key for a day, a
        failure too (Stripe docs, idempotent requests), so one that is played back is asked for once more under a fresh
        key: the identifier alone keeps the event from being counted twice.

        Delivered says that Stripe has received it. Whether it counts is found out later, there and by the audit.
        """
        answer, is_stored_failure = await self._deliver(event, event.identifier)
        if is_stored_failure:
            answer, _ = await self._deliver(event, None)
        return answer

    async def _deliver(self, event: MeterEvent, key: str | None) -> tuple[StripeAnswer, bool]:
        """The answer, and whether it is a stored failure played back."""
        options: Any = {} if key is None else {"idempotency_key": key}
        try:
            said = await self._client.v1.billing.meter_events.create_async(
                {
                    "event_name": event.event_name,
                    "identifier": event.identifier,
                    "payload": {CUSTOMER_KEY: event.customer, VALUE_KEY: str(event.value)},
                    "timestamp": unix_seconds(event.timestamp),
                },
                options,
            )
        except stripe.StripeError as error:
            outcome = outcome_of(error)
            replayed = (error.headers or {}).get(_REPLAYED) == "true"
            answer = StripeAnswer(outcome, error.http_status, error.request_id, key)
            return answer, replayed and not isinstance(outcome, Duplicate)
        request_id = member(said, "last_response", "request_id")
        if member(said, "identifier") != event.identifier:
            other = Retry("200: an answer about something else", None, in_doubt=True)
            return StripeAnswer(other, 200, request_id, key), False
        return StripeAnswer(Delivered(), 200, request_id, key), False

    async def cancel(self, event_name: str, identifier: str) -> None:
        """Takes an event back. Raises OptionError when Stripe does not, ConfigError when the key is refused,
        DependencyDown when Stripe does not answer; then it may have been cancelled.
        """
        try:
            await self._client.v1.billing.meter_event_adjustments.create_async(
                {"event_name": event_name, "type": "cancel", "cancel": {"identifier": identifier}},
                {"idempotency_key": f"cancel:{identifier}"},
            )
        except stripe.StripeError as error:
            outcome = outcome_of(error)
            if isinstance(outcome, Rejected | MeterRefused):
                raise OptionError(f"{identifier}: Stripe does not cancel it: {outcome.reason}") from error
            raise translate_error(error) from error

    async def account(self) -> str:
        """Whose account the key is of, with `/test` after it for a key of its test mode; asked of Stripe once.

        A restricted key needs the permission to read it. Raises ConfigError when it may not, DependencyDown when Stripe
        does not answer. Basis: stripe-python 16.1, `AccountService.retrieve_current`: GET /v1/account; an Account does
        not tell the mode, the key does (Stripe's docs).
        """
        if self._account is None:
            client, is_live = self._client, self._is_live
            try:
                found = await client.v1.accounts.retrieve_current_async()
            except stripe.StripeError as error:
                raise translate_error(error) from error
            account: str = found.id if is_live else f"{found.id}/test"
            if client is not self._client:  # the key has changed meanwhile, and this is the old one's
                return account
            self._account = account
        return self._account

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
                        "customer_mapping": {"type": "by_id", "event_payload_key": CUSTOMER_KEY},
                        "value_settings": {"event_payload_key": VALUE_KEY},
                    }
                )
        except stripe.StripeError as error:
            raise translate_error(error) from error
        problems = meter_problems(meter)
        if problems:
            raise ConfigError(f"Stripe meter {event_name!r}: {'; '.join(problems)}")
        return str(meter.id)

    async def check(self, event_name: str) -> tuple[str, ...]:
        """What is wrong with the Stripe side, one sentence each with how to fix it; empty when all is well.

        Reads only. Raises DependencyDown when Stripe does not answer.
        """
        try:
            meter = await self._meter(event_name)
        except stripe.StripeError as error:
            reason = translate_error(error)
            if isinstance(reason, DependencyDown):
                raise reason from error
            return (str(reason),)
        if meter is None:
            return (
                f"Stripe has no active meter with event_name {event_name!r}, so nothing is sent. "
                "Reactivate it at Stripe where it is archived; `gateway stripe setup` makes it where there is none.",
            )
        return meter_problems(meter)

    async def refusal(self, event_name: str) -> str | None:
        """Why no event of this meter would count; None when they do, and where the key may not look at meters.

        Raises DependencyDown when Stripe does not answer.
        """
        try:
            meter = await self._meter(event_name)
        except stripe.StripeError as error:
            reason = translate_error(error)
            if isinstance(reason, DependencyDown):
                raise reason from error
            return None  # a key that may send and not look; what it sends is refused where there is no meter
        if meter is None:
            return f"no active meter has the event_name {event_name!r}"
        return "; ".join(meter_problems(meter)) or None

    async def read_counts(
        self, event_name: str, customer: str, since: datetime, until: datetime
    ) -> dict[datetime, Decimal] | Rejected:
        """What Stripe has counted of a customer, micro-USD by UTC hour; `since` and `until` are whole hours.

        Rejected when Stripe has no answer for this customer; for one that it does not have it may also say that
        nothing was counted. Summaries lag behind by some minutes. Raises ConfigError when the key is refused or there
        is no such meter, DependencyDown when Stripe does not answer.
        """
        found: dict[datetime, Decimal] = {}
        try:
            meters = [one async for one in self._meters(event_name, {})]
        except stripe.StripeError as error:
            raise translate_error(error) from error
        if not meters:
            raise ConfigError(f"Stripe has no meter with event_name {event_name!r}")
        wanted: Any = {
            "customer": customer,
            "start_time": unix_seconds(since),
            "end_time": unix_seconds(until),
            "value_grouping_window": "hour",
            "limit": 100,
        }
        try:
            # What an archived meter has counted stays with it.
            for meter in meters:
                page = await self._client.v1.billing.meters.event_summaries.list_async(meter.id, wanted)
                async for summary in page.auto_paging_iter():
                    hour = datetime.fromtimestamp(summary.start_time, UTC)
                    found[hour] = found.get(hour, Decimal(0)) + Decimal(str(summary.aggregated_value))
        except stripe.StripeError as error:
            outcome = outcome_of(error)
            if isinstance(outcome, Rejected):
                return outcome
            raise translate_error(error) from error
        return found

    async def read_uncounted(self, event_name: str, since: datetime) -> list[Uncounted]:
        """What Stripe says since then of our events that it received and did not count, by reason; samples only.

        Reads the REPORTS_MAX newest error reports at most. Raises ConfigError when the key may not read them,
        DependencyDown when Stripe does not answer.
        """
        prefix, counts, samples, left = (
            identifier_prefix(event_name),
            Counter[str](),
            dict[str, set[str]](),
            REPORTS_MAX,
        )
        try:
            meter = await self._meter(event_name)
            wanted: Any = {"types": list(REPORTS), "created": {"gte": rfc3339(since)}, "limit": 100}
            page = await self._client.v2.core.events.list_async(wanted)
            async for event in page.auto_paging_iter():
                left -= 1
                if member(event, "data") is None:
                    event = await self._client.v2.core.events.retrieve_async(event.id)
                about = meter is not None and member(event, "related_object", "id") == meter.id
                for kind in member(event, "data", "reason", "error_types") or []:
                    named = {name for one in member(kind, "sample_errors") or [] if (name := _identifier(one))}
                    ours = {name for name in named if name.startswith(prefix)}
                    if about or ours:
                        counts[kind.code] += member(kind, "error_count") or len(named)
                        samples.setdefault(kind.code, set()).update(ours)
                if left == 0:
                    break
        except stripe.StripeError as error:
            raise translate_error(error) from error
        return [Uncounted(code, events, tuple(sorted(samples[code]))) for code, events in counts.most_common()]

    async def customer(self, customer_id: str) -> Customer:
        """Whether Stripe has this customer, so that what is sent for it counts. Raises ConfigError when the key may
        not read customers, DependencyDown when Stripe does not answer.
        """
        try:
            found = await self._client.v1.customers.retrieve_async(customer_id)
        except stripe.StripeError as error:
            outcome = outcome_of(error)
            if not isinstance(outcome, Rejected):
                raise translate_error(error) from error
            if _OTHER_MODE in outcome.reason:
                return Customer(None, "is of Stripe's other mode (live or test) than STRIPE_SECRET_KEY")
            return Customer(None, f"is not there for STRIPE_SECRET_KEY ({outcome.reason})")
        if member(found, "deleted"):
            return Customer(None, "has been deleted at Stripe")
        return Customer(bool(member(found, "livemode")), None, member(found, "currency"))

    async def create_customer(self, user_id: str, email: str) -> str:
        """A Stripe customer for a user of ours; asked again for the same user within a day, the same customer.

        Returns its id. Raises ConfigError when the key is refused or the customer was made and has been changed or
        deleted since, DependencyDown when Stripe does not answer.
        """
        by_hand = "choose or make one at Stripe and link it: gateway users set WHO --stripe-customer cus_…"
        try:
            made = await self._client.v1.customers.create_async(
                {"email": email, "metadata": {"user_id": user_id}}, {"idempotency_key": f"customer:{user_id}"}
            )
        except stripe.IdempotencyError as error:
            if error.http_status != 400:
                raise translate_error(error) from error
            raise ConfigError(
                f"Stripe made a customer for user {user_id} within the last day, with another e-mail address; {by_hand}"
            ) from error
        except stripe.StripeError as error:
            raise translate_error(error) from error
        is_replayed = made.last_response is not None and made.last_response.headers.get(_REPLAYED) == "true"
        problem = (await self.customer(made.id)).problem if is_replayed else None
        if problem is not None:
            raise ConfigError(f"customer {made.id}, made for user {user_id} within the last day, {problem}; {by_hand}")
        return made.id

    async def _meter(self, event_name: str) -> Any:
        """The active one, of which there is at most one."""
        return await anext(self._meters(event_name, {"status": "active"}), None)

    async def _meters(self, event_name: str, wanted: Any) -> AsyncIterator[Any]:
        """All that have the name; an archived one may have been followed by another."""
        wanted = {**wanted, "limit": 100}
        page = await self._client.v1.billing.meters.list_async(wanted)
        async for meter in page.auto_paging_iter():
            if member(meter, "event_name") == event_name:
                yield meter


def _identifier(sample: Any) -> str | None:
    """Whose error it is."""
    return sample_identifier(member(sample, "request", "identifier"), member(sample, "request", "idempotency_key"))
