"""How an amount becomes a Stripe meter event: the arithmetic of windows and the types of billing. Pure.

Amounts are integers: nano-USD (1e-9 USD) in the ledger, whole micro-USD (1e-6 USD) at Stripe. No I/O, no clock,
no float. The identifier must never contain the value: a row derived twice with another amount must collide and
be noticed, not be billed twice.
"""

from datetime import UTC, datetime, timedelta
from hashlib import blake2s
from typing import Final, Literal, NamedTuple

NANO_PER_UNIT: Final = 1000
"""Nano-USD in one unit of the meter (a micro-USD)."""
VALUE_MAX: Final = 10**15 - 1
"""Largest amount of one event: Stripe refuses more than 15 digits (Stripe's docs)."""
EVENT_AGE_MAX: Final = timedelta(days=35)
"""Stripe takes no meter event whose time is longer ago (Stripe docs, meter events)."""
DOUBT_MAX: Final = timedelta(hours=20)
"""After this an event that may have arrived is not sent again: Stripe remembers identifiers for at least 24 h only."""
IDENTIFIER_MAX: Final = 100
"""Characters of an identifier at most (Stripe's docs)."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_PART_MAX: Final = 40


class Leftover(NamedTuple):
    """What is left of a payer between two windows."""

    carry_nano: int
    """Nano-USD that stay for the next window, 0 ≤ carry < 1000."""
    due_nano: int = 0
    """What corrections owe to the customer and no period could take back yet; whole micro-USD, not below 0."""


class Frozen(NamedTuple):
    """What freezing an amount gives."""

    values: tuple[int, ...]
    """Whole micro-USD, one meter event each; empty when there is nothing to send."""
    left: Leftover


class MeterEvent(NamedTuple):
    """One event as Stripe gets it."""

    event_name: str
    customer: str
    value: int
    """Whole micro-USD; negative when adjustments outweigh the window's usage."""
    identifier: str
    timestamp: datetime


class Claim(NamedTuple):
    """One event of the outbox, to be sent now, leased to the worker that claimed it."""

    id: int
    attempts: int
    """This attempt's number: what an attempt says after it lost its lease is ignored."""
    doubt_since: datetime | None
    """When an earlier attempt may have reached Stripe, if one may."""
    event: MeterEvent


class FreezeCounts(NamedTuple):
    """What one freezing pass did."""

    windows: int
    """Windows of which usage was frozen."""
    events: int
    """Outbox rows made."""


class Customer(NamedTuple):
    """A customer as Stripe knows it."""

    is_live: bool | None
    """Whether it is of live mode; None when it is not there."""
    problem: str | None
    """Why nothing that is sent for it counts, as the end of a sentence; None when it does."""
    currency: str | None = None
    """In which it is charged for subscriptions; None where that is not settled yet."""


class Uncounted(NamedTuple):
    """Events that Stripe received and did not count."""

    code: str
    """Stripe's reason, as `meter_event_customer_not_found`."""
    events: int
    """How many."""
    identifiers: tuple[str, ...]
    """Of some of them."""


class Delivered(NamedTuple):
    """Stripe has received it."""


class Duplicate(NamedTuple):
    """Stripe has had it before, under the same identifier: delivered."""


class Rejected(NamedTuple):
    """Stripe will never take it as it is; a person must look."""

    reason: str


Limit = Literal["slot", "rate"]
"""What a 429 is about: `slot`, too many calls at one moment (over soon), or `rate`, too many calls of ours in all."""


class Retry(NamedTuple):
    """Not taken, or not known to be; the same event again later."""

    reason: str
    after_s: float | None
    """Seconds Stripe asked to wait, if it did."""
    in_doubt: bool
    """Whether Stripe may have counted it all the same (an answer lost or not Stripe's, a timeout, a 5xx)."""
    limit: Limit | None = None


class CredentialsRefused(NamedTuple):
    """Stripe refused our credentials: nothing was counted, and nothing will be until the key is fixed."""

    reason: str


class MeterRefused(NamedTuple):
    """Stripe has no active meter for it, so it refuses every event: nothing was counted."""

    reason: str


Outcome = Delivered | Duplicate | Rejected | Retry | CredentialsRefused | MeterRefused


class StripeAnswer(NamedTuple):
    """An outcome, and where it can be looked up at Stripe."""

    outcome: Outcome
    http_status: int | None = None
    request_id: str | None = None
    idempotency_key: str | None = None
    """None where it was one for this call only."""


def freeze(pending_nano: int, left: Leftover, *, is_sent: bool, takes_back: int) -> Frozen:
    """Splits what a window owes, with what is left from before, into whole micro-USD and what is left after it.

    Rounds toward −∞, so the carry is never negative, whatever the sign of `pending_nano`. `takes_back`: whole micro-USD
    that the amount's period has; it cannot take back more, and the rest stays due. What is not sent (`is_sent`) takes
    nothing back, and leaves alone what is due. Always:
    sum(values) × 1000 + carry − due = pending_nano + the old carry − the old due.
    """
    due = left.due_nano if is_sent else 0
    value, carry = divmod(pending_nano + left.carry_nano - due, NANO_PER_UNIT)
    least = -max(0, takes_back) if is_sent else 0
    sent = max(value, least)
    still_due = (sent - value) * NANO_PER_UNIT + (0 if is_sent else left.due_nano)
    values = []
    while sent:
        part = max(-VALUE_MAX, min(VALUE_MAX, sent))
        values.append(part)
        sent -= part
    return Frozen(tuple(values), Leftover(carry, still_due))


def unix_seconds(instant: datetime) -> int:
    """Whole seconds since 1970, without a float on the way."""
    return (instant - _EPOCH) // _SECOND


def identifier(meter: str, customer: str, window_start: datetime, seq: int) -> str:
    """`<meter>:<customer>:<window start, unix seconds>:<seq>`, at most 100 characters, always the same for the same."""
    return f"{identifier_prefix(meter)}{_short(customer)}:{unix_seconds(window_start)}:{seq}"


def identifier_prefix(meter: str) -> str:
    """How every identifier of this meter begins."""
    return f"{_short(meter)}:"


def _short(text: str) -> str:
    """`text`, or its beginning and a digest of the whole where it is long."""
    if len(text) <= _PART_MAX:
        return text
    digest = blake2s(text.encode(), digest_size=6).hexdigest()
    return f"{text[: _PART_MAX - 1 - len(digest)]}~{digest}"
