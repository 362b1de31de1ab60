"""From one reported usage block to its exact cost and lines. Pure; one rounding, at the row's total.

Nothing here may turn an unknown model, tier, field or fee into zero: that is `unpriced`, with a
problem that names it.
"""

from datetime import datetime
from typing import Final, Literal

import msgspec

from pricing.book import Book, Plan, Rate
from pricing.money import nano, usd_text
from pricing.tools import ToolUse
from pricing.tools import read as read_tools
from pricing.usage import Output, Quantities, UsageError, decode, decompose, read_counts

PRICE_FAMILIES: Final[dict[str, Output]] = {
    "chat": "said",
    "completions": "in_total",
    "responses": "said",
    "responses.compact": "said",
    "embeddings": "none",
    "moderations": "none",
    "decisions": "said",
}
"""What a call can be priced as, and what a missing count of its output means. This package knows no gateway, so it has
its own table; a caller names the price family."""
_TIERS: Final = {
    None: "default",
    "default": "default",
    "auto": "default",
    "flex": "flex",
    "priority": "priority",
    "fast": "priority",
    "ultrafast": "ultrafast",
}
"""What a response may name → the tier of the book. `scale` is prepaid, and has none."""
_WINDOWS: Final = {"2h": "background_2h", "8h": "background_8h"}


class PriceRequest(msgspec.Struct, frozen=True):
    """What is needed to price one call. `at` is the instant of the request, with an offset."""

    endpoint: str
    model: str
    at: datetime
    usage: bytes
    """JSON of the usage block, as OpenAI sent it."""
    service_tier: str | None = None
    """The tier that the response names; None is default, and so is `auto`, with a notice."""
    batch: bool = False
    region: str | None = None
    cache_ttl: str | None = None
    """TTL of cache writes that the usage block does not split: "30m" (the default) or "12h"."""
    completion_window: str | None = None
    response: bytes | None = None
    """The whole response body, when fees of hosted tools are to be priced too."""


class Line(msgspec.Struct, frozen=True):
    """One billable quantity; exact decimals without exponent, `quantity` × `usd_per_unit` = `usd`."""

    unit: str
    quantity: str
    usd_per_unit: str
    usd: str


class Priced(msgspec.Struct, frozen=True):
    """A priced row, or the reasons why it is not. `problems` of a reported row are notices."""

    cost_nano: int | None
    """Nano-USD, rounded half-even once; None exactly when `evidence` is `unpriced`."""
    evidence: Literal["reported", "unpriced"]
    price_version: str
    lines: tuple[Line, ...]
    problems: tuple[str, ...]
    low_confidence: bool
    """Whether a price in use is one that the sources leave open."""
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None


class Unpriceable(Exception):
    """The book cannot price this; the message is the problem to report."""


class BillBuilder:
    """Collects lines and their exact sum, femto-USD."""

    def __init__(self) -> None:
        self.femto = 0
        self.lines: list[Line] = []
        self.doubtful: list[str] = []
        self.notices: list[str] = []

    def add(self, rate: Rate, quantity: int, prefix: str = "") -> None:
        """One line of `quantity` (> 0) units at `rate`."""
        femto = rate.femto * quantity
        self.femto += femto
        unit = prefix + rate.unit if prefix else rate.unit
        self.lines.append(Line(unit, str(quantity), rate.usd, usd_text(femto)))
        if rate.doubtful:
            self.doubtful.append(unit)

    def add_tokens(self, plan: Plan, rates: dict[str, Rate], classes: dict[str, int], prefix: str = "") -> None:
        """A line for each class of token. Unpriceable when the model has no rate for one."""
        for class_, quantity in classes.items():
            rate = rates.get(class_)
            if rate is None:
                raise Unpriceable(f"model {plan.model.id!r} has no price for {class_} tokens")
            self.add(rate, quantity, prefix)

    def problems(self, model: str) -> tuple[str, ...]:
        """Notices, and the units whose price is in doubt."""
        if self.doubtful:
            self.notices.append(f"low confidence in the price of {model[:200]}: {', '.join(self.doubtful)}")
        return tuple(self.notices)


def price(book: Book, request: PriceRequest) -> Priced:
    """Price one call. Bad usage, an unknown model or tier give `unpriced`; nothing is raised for them."""
    quantities: Quantities | None = None
    bill = BillBuilder()
    try:
        use = read_tools(request.response) if request.response is not None else None
        model, tier = _identity(request, use, bill)
        plan = _plan(book, model, tier, request.region)
        if not plan.model.free or request.usage.strip() != b"null":
            output = PRICE_FAMILIES[request.endpoint]
            quantities = decompose(decode(request.usage), cache_ttl=request.cache_ttl, output=output)
        if not plan.model.free and quantities is not None:
            rates = rates_at(plan, request.at, quantities.prompt_tokens)
            bill.add_tokens(plan, rates, quantities.classes)
            _add_request_fee(bill, book, plan, request)
            if use is not None:
                _add_tools(bill, book, plan, rates, use, request)
    except (UsageError, Unpriceable) as error:
        return _unpriced_event(book, request, str(error), quantities)
    return Priced(
        nano(bill.femto),
        "reported",
        book.version,
        tuple(bill.lines),
        bill.problems(model),
        bool(bill.doubtful),
        quantities.prompt_tokens if quantities else None,
        quantities.completion_tokens if quantities else None,
        quantities.total_tokens if quantities else None,
    )


def rates_at(plan: Plan, at: datetime, input_tokens: int) -> dict[str, Rate]:
    """The rates of a plan at an instant. Unpriceable in a gap of the book."""
    rates = plan.at(at, input_tokens)
    if rates is None:
        raise Unpriceable(f"model {plan.model.id!r} has no price at {at.isoformat()}")
    return rates


def _identity(request: PriceRequest, use: ToolUse | None, bill: BillBuilder) -> tuple[str, str]:
    """(model, tier of the book) to price by: what the response says wins (OpenAI's docs)."""
    if request.endpoint not in PRICE_FAMILIES:
        raise Unpriceable(f"endpoint {request.endpoint[:80]!r} is not priced")
    if request.at.utcoffset() is None:
        raise Unpriceable("at has no offset from UTC")
    if request.cache_ttl not in (None, "30m", "12h"):
        raise Unpriceable(
            f"cache_ttl {request.cache_ttl[:80]!r} is not known" if request.cache_ttl else "cache_ttl is empty"
        )
    model, service_tier = request.model, request.service_tier
    if use is not None:
        if use.model is not None and use.model != model:
            bill.notices.append(f"priced by the response's model {use.model[:200]!r}, not {model[:200]!r}")
            model = use.model
        if use.service_tier is not None and use.service_tier != service_tier:
            if service_tier is None:
                service_tier = use.service_tier
            elif use.service_tier != "auto":  # which names no tier, so what was given is better
                bill.notices.append(f"priced by the response's service_tier {use.service_tier[:80]!r}")
                service_tier = use.service_tier
    if service_tier == "auto":
        bill.notices.append("service_tier 'auto' names no tier: priced as default")
    return model, _tier(request, service_tier)


def price_tier(service_tier: str | None) -> str | None:
    """The tier of the book for a service tier as a response names it; None where it has no price."""
    return _TIERS.get(service_tier)


def _tier(request: PriceRequest, service_tier: str | None) -> str:
    tier = price_tier(service_tier)
    window = request.completion_window
    if tier is None:
        hint = "scale is prepaid, not per token" if service_tier == "scale" else "unknown"
        raise Unpriceable(f"service_tier {(service_tier or '')[:80]!r} has no price ({hint})")
    if request.batch:
        if tier != "default" or window not in (None, "24h"):
            raise Unpriceable(f"batch cannot be priced as service_tier {service_tier!r} with window {window!r}")
        return "batch"
    if window is not None:
        if window not in _WINDOWS or tier != "default":
            raise Unpriceable(f"completion_window {window[:80]!r} has no price in service_tier {tier!r}")
        return _WINDOWS[window]
    if request.endpoint == "decisions" and tier == "default":
        return "decisions"
    return tier


def _plan(book: Book, model: str, tier: str, region: str | None) -> Plan:
    plan = book.plan(model, tier, region)
    if isinstance(plan, str):
        raise Unpriceable(plan)
    return plan


def _fee(book: Book, bill: BillBuilder, fee_id: str, at: datetime, count: int) -> None:
    rate = book.fee(fee_id, at)
    if rate is None:
        raise Unpriceable(f"the book has no fee {fee_id!r} at {at.isoformat()}")
    bill.add(rate, count)


def _add_request_fee(bill: BillBuilder, book: Book, plan: Plan, request: PriceRequest) -> None:
    """Search models on chat search once per request; their responses carry no count."""
    if plan.model.request_fee is not None and request.endpoint == "chat":
        _fee(book, bill, plan.model.request_fee, request.at, 1)


def _add_tools(
    bill: BillBuilder, book: Book, plan: Plan, rates: dict[str, Rate], use: ToolUse, request: PriceRequest
) -> None:
    if use.web_searches:
        _add_web_search(bill, book, plan, rates, use, request.at)
    if use.file_searches:
        _fee(book, bill, "file_search_calls", request.at, use.file_searches)
    for memory, count in use.containers.items():
        if not memory:
            bill.notices.append("memory limit of a container is not in the response: priced as 1g")
        _fee(book, bill, f"container_{memory or '1g'}_sessions", request.at, count)
        if not memory:
            bill.doubtful.append("container_1g_sessions")
    tier = "batch" if request.batch else "default"
    if use.image_classes:
        image_plan = _plan(book, use.image_model or book.rules.default_image_model, tier, request.region)
        total_in = sum(count for class_, count in use.image_classes.items() if not class_.endswith("output"))
        bill.add_tokens(image_plan, rates_at(image_plan, request.at, total_in), use.image_classes, "image_tool_")
    for svg in use.svg:
        svg_plan = _plan(book, svg.model, tier, request.region)
        svg_rates = rates_at(svg_plan, request.at, svg.classes.get("input", 0))
        bill.add_tokens(svg_plan, svg_rates, svg.classes, "svg_")


def _add_web_search(
    bill: BillBuilder, book: Book, plan: Plan, rates: dict[str, Rate], use: ToolUse, at: datetime
) -> None:
    preview_costs_more = not plan.model.reasoning and use.web_kind != "ga"
    _fee(book, bill, "web_search_preview_calls" if preview_costs_more else "web_search_calls", at, use.web_searches)
    if preview_costs_more and use.web_kind == "unclear":
        bill.notices.append("the response does not tell web_search from web_search_preview: priced as the dearer")
        bill.doubtful.append("web_search_preview_calls")
    if use.web_kind == "ga" and plan.model.web_search_content_tokens:
        block = plan.model.web_search_content_tokens * use.web_searches
        bill.add(rates["input"], block, "web_search_content_")
        bill.doubtful.append("web_search_content_input_tokens")


def _unpriced_event(book: Book, request: PriceRequest, problem: str, known: Quantities | None) -> Priced:
    """A row without a price; its token counts are kept when they make sense, whatever else does not."""
    problems = [problem]
    if known is None:
        try:
            known = decompose(decode(request.usage), output="none")
        except UsageError as error:
            problems += [] if str(error) == problem else [str(error)]
    counts = known or read_counts(request.usage)
    return Priced(
        None,
        "unpriced",
        book.version,
        (),
        tuple(problems),
        False,
        counts.prompt_tokens,
        counts.completion_tokens,
        counts.total_tokens,
    )
