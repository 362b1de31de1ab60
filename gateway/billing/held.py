"""The meter events that wait for a person, and what the person decides (docs/billing.md).

Decides nothing itself: an event is sent again, counts as delivered, is settled or written off only because somebody
said so; and whether Stripe has counted it is asked of Stripe's summaries first.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple, Protocol

from gateway.billing.decisions import HOUR, Action, CreditDue, Decisions, HeldDecision, HeldEvent
from gateway.billing.filing import FilingRules
from gateway.billing.opening import open_billing
from gateway.billing.outbox import HELD_STATES, Outbox
from gateway.billing.refiling import Replaced
from gateway.billing.summaries import Verdict, judge_event
from gateway.billing.windows import Rejected
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError, OptionError
from gateway.stores.one_connection import database
from gateway.stores.postgres import Pool
from gateway.trail.record import recording
from gateway.trail.store import Deed

_WHY: Final = "the outbox is in PostgreSQL"
_LOOKS: Final[tuple[Action, ...]] = ("reissue", "delivered")
"""Actions that go by what Stripe has counted."""
_FITS: Final[dict[str, tuple[Verdict, ...]]] = {"reissue": ("not counted", "never sent"), "delivered": ("counted",)}


class WantedDecision(NamedTuple):
    """What somebody wants to decide."""

    action: Action
    why: str
    reference: str | None = None
    identifier: str | None = None
    """One event; None takes all that fit the rest."""
    states: Sequence[str] = HELD_STATES
    error: str | None = None
    is_forced: bool = False
    """Whether what Stripe's summaries say does not matter; it is recorded that they were overruled."""


class Judged(NamedTuple):
    """One event, and whether the action fits it."""

    event: HeldEvent
    verdict: Verdict | None
    """What Stripe's summaries say; None where the action does not go by them."""
    evidence: dict[str, object]
    refusal: str | None
    """Why it is not done."""
    replaced: Replaced | None = None
    """What has the amount now, once it is sent again."""
    is_done: bool = False


_Counted = Mapping[tuple[str, str], dict[datetime, Decimal] | Rejected]
"""By meter and customer: micro-USD by hour."""


class StripeSummaries(Protocol):
    """What this needs of Stripe."""

    async def read_counts(
        self, event_name: str, customer: str, since: datetime, until: datetime
    ) -> dict[datetime, Decimal] | Rejected: ...


def rules_of(settings: Settings) -> FilingRules:
    """How late an amount may be filed into its period."""
    return FilingRules(settings.billing.invoice_grace_h, settings.billing.late == "hold")


async def list_held(settings: Settings) -> tuple[list[HeldEvent], list[CreditDue]]:
    """The events that wait for a person, newest first, and what is due. Raises ConfigError, DependencyDown."""
    async with database(settings, _WHY) as pool:
        decisions = Decisions(pool, rules_of(settings))
        return await decisions.held(HELD_STATES), await decisions.credit_due()


async def decide(
    settings: Settings, wanted: WantedDecision, *, now: datetime | None, is_sure: bool, by: str | None = None
) -> list[Judged]:
    """Judges the events that are meant, and does what is wanted with those that it fits where `is_sure`.

    Without `now` PostgreSQL's clock counts: by it the workers say when they have sent something.
    Raises OptionError when no such event waits, ConfigError without what is needed, DependencyDown.
    """
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(database(settings, _WHY))
        decisions = Decisions(pool, rules_of(settings))
        events = await decisions.held(wanted.states, identifier=wanted.identifier, error=wanted.error)
        if not events:
            which = "such event" if wanted.identifier is None else f"event {wanted.identifier!r}"
            raise OptionError(f"no {which} waits for a decision; `gateway billing held` lists those that do")
        at = await Outbox(pool).now() if now is None else now
        stripe = await _stripe_of(stack, settings, wanted, events)
        counted = {} if stripe is None else await _read_counted(stripe, events)
        judged = [await _judge(decisions, counted, event, wanted, at) for event in events]
        if not is_sure:
            return judged
        return [await _do(settings, pool, each, wanted, at, by) for each in judged]


async def _stripe_of(
    stack: AsyncExitStack, settings: Settings, wanted: WantedDecision, events: Sequence[HeldEvent]
) -> StripeSummaries | None:
    if wanted.action not in _LOOKS or not any(event.was_sent for event in events):
        return None
    if settings.stripe_secret_key is None:
        if wanted.is_forced:
            return None
        raise ConfigError("STRIPE_SECRET_KEY is not set: whether Stripe has counted the event cannot be asked")
    return await open_billing(stack, settings, settings.stripe_secret_key.get_secret_value())


async def _read_counted(stripe: StripeSummaries, events: Sequence[HeldEvent]) -> _Counted:
    """What Stripe has counted in the hours of the events, each customer asked about once."""
    hours = defaultdict[tuple[str, str], list[datetime]](list)
    for event in events:
        if event.was_sent:
            hours[event.meter, event.customer].append(event.hour)
    return {
        whose: await stripe.read_counts(*whose, min(all_hours), max(all_hours) + HOUR)
        for whose, all_hours in hours.items()
    }


async def _judge(
    decisions: Decisions, counted: _Counted, event: HeldEvent, wanted: WantedDecision, now: datetime
) -> Judged:
    if wanted.action not in _LOOKS:
        return Judged(event, None, {}, None)
    # What was sent for the hour since the summaries were read makes the verdict "too early".
    sent, summary = await decisions.hour_sent(event), None
    counts = counted.get((event.meter, event.customer))
    if event.was_sent and counts is not None and not isinstance(counts, Rejected):
        summary = counts.get(event.hour, Decimal(0))
    verdict = judge_event(event.value, event.was_sent, sent, summary, now)
    evidence: dict[str, object] = {
        "hour": event.hour.isoformat(),
        "stripe_has": None if summary is None else str(summary),
        "delivered": sent.delivered,
        "undecided": list(sent.undecided),
        "verdict": verdict,
    }
    refusal = None if verdict in _FITS[wanted.action] else _refuse(wanted.action, verdict, evidence)
    if refusal is not None and wanted.is_forced:
        refusal, evidence["forced"] = None, True
    return Judged(event, verdict, evidence, refusal)


def _refuse(action: Action, verdict: Verdict, evidence: dict[str, object]) -> str:
    figures = f"Stripe has {evidence['stripe_has']} micro-USD in its hour, {evidence['delivered']} were delivered"
    match verdict:
        case "too early":
            return "too early: Stripe's summaries may lag by 15 minutes; ask again later"
        case "counted":
            return f"Stripe has counted it: {figures}. Sending it again would charge twice"
        case "not counted":
            return f"Stripe has not counted it: {figures}"
        case "never sent":
            return "it was never sent, so Stripe cannot have it"
        case _:
            return f"what Stripe says does not tell whether it has counted it: {figures}; --force decides all the same"


async def _do(
    settings: Settings, pool: Pool, judged: Judged, wanted: WantedDecision, now: datetime, by: str | None
) -> Judged:
    if judged.refusal is not None:
        return judged
    event = judged.event
    async with recording(settings, pool, by=by) as record:
        decision = HeldDecision(wanted.action, record.actor.name, wanted.why, wanted.reference, judged.evidence)
        try:
            replaced = await Decisions(record.connections, rules_of(settings)).decide(event, decision, now)
        except KeyError:
            return judged._replace(refusal="it has changed meanwhile; look again")
        except ValueError as error:
            return judged._replace(refusal=str(error))
        after = {
            "action": wanted.action,
            "why": wanted.why,
            "reference": wanted.reference,
            "sent_again": None if replaced is None else str(replaced),
        }
        await record.write(Deed(wanted.action, "meter_event", event.identifier, {"state": event.state}, after))
    return judged._replace(replaced=replaced, is_done=True)
