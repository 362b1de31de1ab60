"""Interprets Stripe's answers, and finds problems of a meter (Stripe's docs)."""

import re
from typing import Any, Final

import aiohttp
import stripe

from gateway.billing.stripe_http import UnreadableAnswer
from gateway.billing.windows import (
    CredentialsRefused,
    Delivered,
    Duplicate,
    Limit,
    MeterRefused,
    Outcome,
    Rejected,
    Retry,
)
from gateway.kit.errors import ConfigError, DependencyDown

CUSTOMER_KEY: Final = "stripe_customer_id"
VALUE_KEY: Final = "value"
_DUPLICATE: Final = "An event already exists with identifier"
_NO_METER: Final = "No active meter found"
"""How Stripe's refusal begins where no meter has the event's name (public code quotes it; Stripe's docs do not)."""
_LIMIT: Final = "stripe-rate-limited-reason"
_RATES: Final = ("global-rate", "endpoint-rate")
_SLOTS: Final = ("global-concurrency", "endpoint-concurrency", "resource-specific")
"""Reasons of a 429 (Stripe docs, rate limits). One without a reason is a lock_timeout: the object is in use."""
_NOES: Final = (400, 402, 404)
"""With an error of Stripe's these say that nothing was done, and nothing will be."""
_MISSING: Final = re.compile(r"Having the '(rak_[a-z0-9_]+)' permission would allow")
"""Stripe's words to a restricted key, 403 (stripe/stripe-node issue 2246)."""
_NEVER_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""No connection was made, so no byte of the request can have arrived."""


def outcome_of(error: stripe.StripeError) -> Outcome:
    """What an error of the SDK means for the event that was sent.

    Only a no in Stripe's own words is one: what stands between may say anything, and Stripe may have counted all the
    same.
    """
    message = error.user_message or type(error).__name__
    status = error.http_status
    headers = error.headers or {}
    if isinstance(error, stripe.APIConnectionError) or status is None:
        never_sent = isinstance(error.__cause__, _NEVER_SENT)
        cause = type(error.__cause__ or error).__name__
        return Retry(f"no answer from Stripe: {cause}", None, in_doubt=not never_sent)
    after_s = _seconds(headers.get("retry-after"))
    if status == 429:
        return Retry(f"429: {message}", after_s, in_doubt=False, limit=_limit(error))
    if isinstance(error, UnreadableAnswer):
        return Retry(f"{status}: {message}", after_s, in_doubt=True)
    if status == 400 and message.startswith(_DUPLICATE):
        return Duplicate()
    if status == 400 and message.startswith(_NO_METER):
        return MeterRefused(f"{status}: {message}")
    if status in (401, 403):
        # Not Stripe's own words: its message repeats part of the key.
        if missing := _MISSING.search(message):
            return CredentialsRefused(f"Stripe answered {status}: STRIPE_SECRET_KEY lacks the permission {missing[1]}")
        return CredentialsRefused(f"Stripe answered {status}: check STRIPE_SECRET_KEY and what it may do")
    if status in _NOES and headers.get("stripe-should-retry") != "true":
        return Rejected(f"{status}: {message}")
    return Retry(f"{status}: {message}", after_s, in_doubt=True)


def translate_error(error: stripe.StripeError) -> ConfigError | DependencyDown:
    """What an error means where nothing is sent but something asked or made."""
    outcome = outcome_of(error)
    if isinstance(outcome, Retry):
        return DependencyDown("stripe", outcome.reason)
    return ConfigError(str(outcome) if isinstance(outcome, Delivered | Duplicate) else outcome.reason)


def _limit(error: stripe.StripeError) -> Limit | None:
    """What a 429 is about; None where it does not say, or somebody between says it."""
    told = (error.headers or {}).get(_LIMIT)
    if told in _RATES:
        return "rate"
    return "slot" if told in _SLOTS or _code(error) == "lock_timeout" else None


def _code(error: stripe.StripeError) -> str | None:
    """The SDK leaves `error.code` out where the status is 429 (stripe-python 16.1)."""
    body = error.json_body if isinstance(error.json_body, dict) else {}
    code = error.code or body.get("error", {}).get("code")
    return code if isinstance(code, str) else None


def member(value: Any, *path: str) -> Any:
    """What an object of Stripe's has there; None where it is left out."""
    for name in path:
        value = getattr(value, name, None)
    return value


def meter_problems(meter: Any) -> tuple[str, ...]:
    """Why an existing meter would not add up our events; empty when it would."""
    problems = []
    if (formula := member(meter, "default_aggregation", "formula")) != "sum":
        problems.append(f"its formula is {formula!r} and must be 'sum'")
    if member(meter, "event_time_window") is not None:
        problems.append("it keeps only the newest event of a time window (event_time_window must be empty)")
    if member(meter, "customer_mapping", "event_payload_key") != CUSTOMER_KEY:
        problems.append(f"its customer key must be {CUSTOMER_KEY!r}")
    if member(meter, "value_settings", "event_payload_key") != VALUE_KEY:
        problems.append(f"its value key must be {VALUE_KEY!r}")
    return tuple(f"{problem}; a meter cannot be changed, so make another one" for problem in problems)


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; None when absent or a date, which Stripe does not send."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
