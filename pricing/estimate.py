"""Cost of a call that OpenAI never reported, from counted or bounded tokens. Pure.

The estimate is the best guess and the bound a ceiling: every token at the dearest rate that the
request could have been charged. A bound below its estimate would be a bug.
"""

from datetime import datetime

import msgspec

from pricing.book import Book, Plan, Rate
from pricing.cost import PRICE_FAMILIES, BillBuilder, Line, Unpriceable, rates_at
from pricing.money import nano

_TIERS = {None: ("default",), "default": ("default",), "flex": ("flex", "default"), "ultrafast": ("ultrafast",)}
_TIERS |= {"priority": ("priority", "default"), "fast": ("priority", "default"), "auto": ("default", "priority")}


class Estimate(msgspec.Struct, frozen=True):
    """Estimated cost and its ceiling, nano-USD; both None when the book cannot price the call."""

    cost_nano: int | None
    bound_nano: int | None
    lines: tuple[Line, ...]
    price_version: str
    problems: tuple[str, ...]
    low_confidence: bool


def estimate(
    book: Book,
    *,
    endpoint: str,
    model: str,
    at: datetime,
    service_tier: str | None,
    input_tokens: int,
    output_tokens: int,
    input_bound: int,
    output_bound: int,
    region: str | None = None,
    cache_ttl: str | None = None,
) -> Estimate:
    """Estimate a call by its requested tier, as nothing better is known.

    Tokens, all ≥ 0; the bounds are raised to the estimates when they are below them. `auto` is
    estimated as default and bounded by priority. `cache_ttl` "12h" lets the bound hold 12-hour
    cache writes. ValueError for a negative count: the caller's bug.
    """
    if min(input_tokens, output_tokens, input_bound, output_bound) < 0:
        raise ValueError("token counts must not be negative")
    bill = BillBuilder()
    try:
        tiers = _tiers(endpoint, service_tier, at)
        plans = _plans(book, model, tiers, region)
        if plans[0].model.free:
            return Estimate(0, 0, (), book.version, (), low_confidence=False)
        rates = rates_at(plans[0], at, input_tokens)
        counts = {"input": input_tokens, "output": output_tokens}
        bill.add_tokens(plans[0], rates, {class_: count for class_, count in counts.items() if count})
        fee = _request_fee(book, plans[0], endpoint, at)
        if fee is not None:
            bill.add(fee, 1)
        inputs, outputs = max(input_bound, input_tokens), max(output_bound, output_tokens)
        bound = max(_ceiling(plan, at, inputs, outputs, cache_ttl) for plan in plans) + (fee.femto if fee else 0)
    except Unpriceable as error:
        return Estimate(None, None, (), book.version, (str(error),), low_confidence=False)
    if service_tier == "auto":
        bill.notices.append("service_tier auto: estimated as default, bounded by priority")
    return Estimate(
        nano(bill.femto),
        nano(max(bound, bill.femto)),
        tuple(bill.lines),
        book.version,
        bill.problems(model),
        bool(bill.doubtful) or service_tier == "auto",
    )


def _tiers(endpoint: str, service_tier: str | None, at: datetime) -> tuple[str, ...]:
    """The tier to estimate by, then the others that the bound must cover (a request may be served as default)."""
    if endpoint not in PRICE_FAMILIES:
        raise Unpriceable(f"endpoint {endpoint[:80]!r} is not priced")
    if at.utcoffset() is None:
        raise Unpriceable("at has no offset from UTC")
    tiers = _TIERS.get(service_tier)
    if tiers is None:
        raise Unpriceable(f"service_tier {(service_tier or '')[:80]!r} has no price")
    return ("decisions",) if endpoint == "decisions" and tiers[0] == "default" else tiers


def _plans(book: Book, model: str, tiers: tuple[str, ...], region: str | None) -> list[Plan]:
    """Plans of the tiers that the model has; the first tier is not optional."""
    found = []
    for index, tier in enumerate(tiers):
        plan = book.plan(model, tier, region)
        if not isinstance(plan, str):
            found.append(plan)
        elif index == 0:
            raise Unpriceable(plan)
    return found


def _request_fee(book: Book, plan: Plan, endpoint: str, at: datetime) -> Rate | None:
    if plan.model.request_fee is None or endpoint != "chat":
        return None
    fee = book.fee(plan.model.request_fee, at)
    if fee is None:
        raise Unpriceable(f"the book has no fee {plan.model.request_fee!r} at {at.isoformat()}")
    return fee


def _ceiling(plan: Plan, at: datetime, inputs: int, outputs: int, cache_ttl: str | None) -> int:
    """Femto-USD of a request at the dearest class of input and of output that it may be billed."""
    rates = rates_at(plan, at, inputs)
    billable = ["input", "write_30m", "audio_input"] + (["write_12h"] if cache_ttl == "12h" else [])
    dearest_in = max(rates[class_].femto for class_ in billable if class_ in rates)
    dearest_out = max((rates[class_].femto for class_ in ("output", "audio_output") if class_ in rates), default=0)
    return inputs * dearest_in + outputs * dearest_out
