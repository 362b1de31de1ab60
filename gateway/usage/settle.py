"""From what was asked and what OpenAI said to the one UsageEvent of a call. Pure: prices, but does no I/O.

The proxy and the sweeper both settle through here, so a call is valued the same way whoever settles it. What
must not happen: an exception of pricing that loses the call (it settles `unpriced`), or cost 0 for want of a price.
"""

import math
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

import pricing
from gateway.openai.families.catalogue import has_output, price_family
from gateway.usage.event import Evidence, OpenRecord, UsageEvent
from gateway.usage.plans import KnownPlans, Terms, bill, bill_most, markup_terms
from gateway.usage.usage_block import NO_USAGE, StoredUsage, keep
from pricing.readers.body import Said

BYTES_PER_TOKEN: Final = 4
"""Where no tokenizer was asked: bytes of text per token, OpenAI's rule of thumb."""
MEDIA_TOKENS: Final = 1_000
"""An image or file part in an estimate, tokens."""
CONTEXT_TOKENS_MAX: Final = 1_050_000
"""The context of a model whose own is not in the book, tokens; more than any that is."""
MEDIA_TOKENS_MAX: Final = 25_000
"""An image in a bound, tokens: 10,000 patches at the highest multiplier (OpenAI's docs). A file or sound is at least
that: a compressed one may hold more than it has bytes."""


NOT_BILLED: Final = "not_billed"
"""Flag of an estimate's metadata: by the setting, estimates are not billed. Its amount is 0, whatever its plan."""
UNSEEN: Final = "unseen_output"
"""Flag of an estimate's metadata: a model that reasons may have written more than anybody saw."""


class Tokens(msgspec.Struct, frozen=True):
    """A best estimate of one call, tokens."""

    input: int
    output: int


class Settler:
    """Values calls by one price book and one billing policy."""

    def __init__(
        self,
        book: pricing.Book,
        *,
        markup: Decimal,
        bill_estimates: bool,
        region: str | None,
        unseen_share: Decimal = Decimal("0.25"),
        plans: KnownPlans | None = None,
    ) -> None:
        """`markup` holds where none of `plans` does. `unseen_share`: of the most output that a call may have, what
        counts where a model reasoned unseen."""
        self._book: Final = book
        self._setting: Final = markup_terms(markup)
        self._plans: Final = plans or KnownPlans()
        self._bill_estimates: Final = bill_estimates
        self._region: Final = region
        self._unseen_share: Final = unseen_share

    def settle_exact(
        self,
        opened: OpenRecord,
        said: Said,
        completed_at: datetime,
        *,
        drained: bool = False,
        request_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        terms: Terms | None = None,
    ) -> UsageEvent:
        """OpenAI said what was used: `reported` (or `drained`), else `unpriced` when the price is not known.

        `terms`: those that it is billed by; without, those that held when it began.
        """
        usage = said.usage or b"{}"
        model = said.model or opened.model
        terms = terms or self._terms(opened, model)
        tier, notices = _tier(opened, said)
        request = pricing.PriceRequest(
            endpoint=price_family(opened.endpoint),
            model=model,
            at=opened.started_at,
            usage=usage,
            service_tier=tier,
            region=self._region,
            cache_ttl=opened.cache_ttl,
        )
        extra = dict(opened.metadata) if metadata is None else {**opened.metadata, **metadata}
        if model != opened.model:
            extra["requested_model"] = opened.model
        billable: dict[str, Any] = {"model": model, "service_tier": tier}
        if self._region is not None:
            billable["region"] = self._region
        if opened.cache_ttl is not None:
            billable["cache_ttl"] = opened.cache_ttl
        extra["billable"] = billable
        priced, billed = self._price(request, terms)
        if said.unsure and said.model is None:
            notices = (*notices, f"the answer's model was not found: priced as asked, {model[:200]!r}")
        if notices or priced.problems:
            extra["problems"] = [*notices, *priced.problems]
        if priced.low_confidence:
            extra["price_confidence"] = "low"
        evidence: Evidence = "unpriced" if priced.cost_nano is None else "drained" if drained else "reported"
        return self._event(
            opened,
            said,
            completed_at,
            evidence,
            priced.cost_nano,
            billed,
            terms,
            request_id=request_id,
            usage=usage,
            metadata=extra,
            priced=priced,
        )

    def _price(self, request: pricing.PriceRequest, terms: Terms) -> tuple[pricing.Priced, int | None]:
        """What a call costs, and what is billed for it, nano-USD."""
        try:
            priced = pricing.price(self._book, request)
            if priced.cost_nano is None:
                return priced, None
            return priced, bill(priced.cost_nano, priced.lines, terms, request.model, request.service_tier)
        except Exception as error:  # noqa: BLE001  # a bug in pricing must not lose the call: it stays unpriced
            counts, problem = pricing.read_counts(request.usage), f"pricing failed: {type(error).__name__}"
            return pricing.Priced(None, "unpriced", self._book.version, (), (problem,), False, *counts), None

    def settle_void(
        self,
        opened: OpenRecord,
        completed_at: datetime,
        reason: str,
        *,
        request_id: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> UsageEvent:
        """Proven not run: costs 0."""
        extra = {**opened.metadata, **(metadata or {}), "void_reason": reason}
        terms = self._terms(opened, opened.model)
        return self._event(opened, Said(), completed_at, "void", 0, 0, terms, request_id=request_id, metadata=extra)

    def settle_estimated(
        self,
        opened: OpenRecord,
        said: Said,
        completed_at: datetime,
        reason: str,
        tokens: Tokens,
        *,
        request_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        hides_output: bool = False,
    ) -> UsageEvent:
        """OpenAI never said: the best estimate, with the most it can have been as `metadata.bound_usd`.

        `hides_output`: the end of the answer was not seen, so a model that reasons may have written what nobody saw.
        """
        model = said.model or opened.model
        extra = {**opened.metadata, **(metadata or {}), "reason": reason, **_request_facts(opened)}
        if hides_output and (unseen := self._unseen(opened, model)) is not None:
            extra[UNSEEN] = True
            tokens = Tokens(tokens.input, max(tokens.output, unseen))
        value = self._estimate(opened, said, tokens)
        if model != opened.model:
            extra["requested_model"] = opened.model
        extra["bound_usd"] = None if value.bound_nano is None else pricing.nano_text(value.bound_nano)
        if value.problems:
            extra["problems"] = list(value.problems)
        if value.low_confidence:
            extra["price_confidence"] = "low"
        terms = self._terms(opened, model)
        tier = _estimated_tier(opened, said)
        billed = None if value.cost_nano is None else bill(value.cost_nano, value.lines, terms, model, tier)
        if billed is not None and not self._bill_estimates:
            billed, extra[NOT_BILLED] = 0, True
        event = self._event(
            opened,
            said,
            completed_at,
            "unpriced" if billed is None else "estimated",
            value.cost_nano,
            billed,
            terms,
            request_id=request_id,
            metadata=extra,
        )
        return msgspec.structs.replace(
            event,
            prompt_tokens=tokens.input,
            completion_tokens=tokens.output,
            total_tokens=tokens.input + tokens.output,
            price_version=value.price_version,
            cost_lines=value.lines,
        )

    def settle_unfinished(self, event: UsageEvent, opened: OpenRecord, reason: str) -> UsageEvent:
        """OpenAI named figures, but the answer never came to its end: they are the best estimate, no more."""
        if event.cost_nano is None:
            return event
        said = Said(model=event.model, service_tier=event.service_tier)
        value = self._estimate(opened, said, Tokens(event.prompt_tokens or 0, event.completion_tokens or 0))
        bound = None if value.bound_nano is None else pricing.nano_text(max(value.bound_nano, event.cost_nano))
        extra = {**event.metadata, "reason": reason, "bound_usd": bound, **_request_facts(opened)}
        billed = event.billed_nano
        if not self._bill_estimates:
            billed, extra[NOT_BILLED] = 0, True
        return msgspec.structs.replace(event, evidence="estimated", billed_nano=billed, metadata=extra)

    def _estimate(self, opened: OpenRecord, said: Said, tokens: Tokens) -> pricing.Estimate:
        """The price of `tokens`, and of the most it can have been: all text in, as much out as model and cap let."""
        model = said.model or opened.model
        try:
            inputs, outputs = self._most_tokens(opened, model)
            return pricing.estimate(
                self._book,
                endpoint=price_family(opened.endpoint),
                model=model,
                at=opened.started_at,
                service_tier=_estimated_tier(opened, said),
                input_tokens=tokens.input,
                output_tokens=tokens.output,
                input_bound=max(tokens.input, inputs),
                output_bound=max(tokens.output, outputs),
                region=self._region,
                cache_ttl=opened.cache_ttl,
            )
        except Exception as error:  # noqa: BLE001  # a bug in pricing must not lose the call: it stays unpriced
            problem = f"pricing failed: {type(error).__name__}"
            return pricing.Estimate(None, None, (), self._book.version, (problem,), low_confidence=False)

    def _most_tokens(self, opened: OpenRecord, model: str) -> tuple[int, int]:
        """The most tokens that a call can read, and write."""
        # What an earlier response adds is not in the request; the model's context is all it can be.
        earlier = (self._book.context_tokens(model) or CONTEXT_TOKENS_MAX) if opened.continues else 0
        return max(opened.text_bytes + self._most_media(opened, model), earlier), self._most_output(opened, model)

    def _most_output(self, opened: OpenRecord, model: str) -> int:
        """The most tokens that all answers of a call can have."""
        if not has_output(opened.endpoint):
            return 0
        cap = self._book.max_output_tokens(model)
        return (cap if opened.output_cap is None else min(cap, opened.output_cap)) * opened.choices

    def _unseen(self, opened: OpenRecord, model: str) -> int | None:
        """Output tokens to count where nobody saw the end of the answer; None for a model that does not reason."""
        found = self._book.resolve(model)
        if found is None or not found.reasoning or not has_output(opened.endpoint):
            return None
        return math.ceil(self._most_output(opened, model) * self._unseen_share)

    def _most_media(self, opened: OpenRecord, model: str) -> int:
        """The most tokens of pictures, files and sounds: no model reads more than its context."""
        if not opened.media_parts:
            return 0
        context = self._book.context_tokens(model) or CONTEXT_TOKENS_MAX
        inline = opened.media_parts * MEDIA_TOKENS_MAX + opened.media_bytes
        return context if opened.file_links else min(context, inline)

    def highest_cost(self, opened: OpenRecord) -> int | None:
        """The most that a call can cost, nano-USD, before anything is known of it; None when its price is not known."""
        tokens = self.by_bytes(opened, 0)
        # Without a tier, as with `auto`, the project's default counts: "standard", "fast" (that is priority) or "scale"
        # (openai-python 3.54, `ProjectServiceTierSettings`); scale is paid for in advance.
        tiers = ("default", "priority") if opened.service_tier in (None, "auto") else (opened.service_tier,)
        values = [self._estimate(opened, Said(service_tier=tier), tokens) for tier in tiers]
        bounds = [value.bound_nano for value in values if value.bound_nano is not None]
        return max(bounds, default=None)

    def highest_billed(self, opened: OpenRecord, cost_nano: int) -> int:
        """The most that a customer is charged for a call that costs at most `cost_nano`."""
        inputs, outputs = self._most_tokens(opened, opened.model)
        return bill_most(cost_nano, inputs, outputs, self._terms(opened, opened.model), opened.model)

    def by_bytes(self, opened: OpenRecord, output_tokens: int) -> Tokens:
        """The estimate that needs no tokenizer: text bytes / 4 in, what was seen out."""
        text = -(-opened.text_bytes // BYTES_PER_TOKEN)
        return Tokens(text + opened.media_parts * MEDIA_TOKENS, output_tokens)

    def encoding(self, model: str) -> str:
        """The tiktoken encoding of `model`."""
        return self._book.encoding(model)

    def _terms(self, opened: OpenRecord, model: str) -> Terms:
        """What a call of `model` is billed by: the plan in force when it began, else the setting."""
        found = self._plans.book.resolve(
            opened.started_at,
            user_id=opened.user_id,
            api_key_id=opened.api_key_id,
            model=model,
            endpoint=opened.endpoint,
        )
        return found or self._setting

    def _event(
        self,
        opened: OpenRecord,
        said: Said,
        completed_at: datetime,
        evidence: Evidence,
        cost_nano: int | None,
        billed_nano: int | None,
        terms: Terms,
        *,
        request_id: str | None,
        metadata: dict[str, Any],
        usage: bytes | None = None,
        priced: pricing.Priced | None = None,
    ) -> UsageEvent:
        kept = StoredUsage(NO_USAGE) if usage is None else keep(usage)
        if kept.problem is not None:
            metadata["problems"] = [*metadata.get("problems", ()), kept.problem]
        # A call that has no price has its tokens all the same.
        counts = priced or (pricing.TokenCounts() if usage is None else pricing.read_counts(usage))
        return UsageEvent(
            id=opened.id,
            user_id=opened.user_id,
            endpoint=opened.endpoint,
            model=said.model or opened.model,
            evidence=evidence,
            started_at=opened.started_at,
            completed_at=completed_at,
            api_key_id=opened.api_key_id,
            meeting_id=opened.meeting_id,
            service_tier=said.service_tier,
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            total_tokens=counts.total_tokens,
            cost_nano=cost_nano,
            billed_nano=billed_nano,
            price_version=priced.price_version if priced else self._book.version,
            plan_version=terms.name,
            cost_lines=priced.lines if priced else (),
            usage=kept.usage,
            usage_raw=kept.raw,
            response_id=said.response_id,
            request_id=request_id,
            metadata=metadata,
        )


def is_unknown(event: UsageEvent) -> bool:
    """Whether a later row may say that the call has cost much more."""
    return event.evidence == "unpriced" or UNSEEN in event.metadata


def _request_facts(opened: OpenRecord) -> dict[str, str]:
    """What an estimate keeps of the request: what OpenAI says later may need it for its price (ledger/poll)."""
    asked = {"service_tier_asked": opened.service_tier, "cache_ttl_asked": opened.cache_ttl}
    return {name: value for name, value in asked.items() if value is not None}


def _estimated_tier(opened: OpenRecord, said: Said) -> str | None:
    """The tier to estimate by: the one that was asked for where no answer has named another (plans.priced_tier)."""
    return _tier(opened, said)[0] or opened.service_tier


def _tier(opened: OpenRecord, said: Said) -> tuple[str | None, tuple[str, ...]]:
    """The tier to price by, and what the row says of it.

    Finished answers may say `auto` (recorded: gpt-5 with a custom tool, computer use). They were served, and nothing
    is known of the tier but what was asked for.
    """
    asked, found = opened.service_tier, said.service_tier
    if found is None and said.unsure:
        what = "none" if asked is None else repr(asked[:80])
        return asked, (f"the answer's service_tier was not found: priced as asked, {what}",)
    if found != "auto" or asked is None or asked == "auto":
        return found, ()
    return asked, (f"the answer says service_tier 'auto': priced as asked, {asked[:80]!r}",)
