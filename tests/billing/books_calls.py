"""The calls of the model's platform, as a proxy records them: priced from usage, and billed by the plans it knows."""

import random
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

import pricing
import pricing.data
from gateway.config.settings import Settings
from gateway.usage.event import UsageEvent
from gateway.usage.plans import PlanBook, bill, markup_terms
from tests.billing.books_truth import Fact
from tests.support.stripe_shop import START
from tests.support.usage import usage

BEGIN: Final = datetime.fromtimestamp(START, UTC)
BOOK: Final = pricing.parse(pricing.data.read_texts())


class Proxy:
    """One for a run."""

    def __init__(self, dice: random.Random, settings: Settings) -> None:
        self._random: Final = dice
        self._settings: Final = settings
        self.plans = PlanBook()
        """As it has last read them."""

    def new_id(self) -> str:
        """Of an event."""
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def record(self, user: str, at: datetime) -> UsageEvent:
        """A call that was over at `at`: of no tokens, of a few, or of millions."""
        event = usage(user, max(at, BEGIN), 0)
        tokens = self._random.choice(
            ((0, 0), (4, 0), (1, 1), (3, 7), (977, 1_013), (self._random.randint(0, 10**7), 0))
        )
        block = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
        raw = msgspec.json.encode(block)
        priced = pricing.price(BOOK, pricing.PriceRequest("chat", event.model, event.started_at, raw))
        found = self.plans.resolve(
            event.started_at, user_id=user, api_key_id=None, model=event.model, endpoint=event.endpoint
        )
        terms = found or markup_terms(self._settings.billing.markup)
        assert priced.cost_nano is not None
        return msgspec.structs.replace(
            event,
            id=self.new_id(),
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            total_tokens=sum(tokens),
            usage=msgspec.Raw(raw),
            cost_nano=priced.cost_nano,
            cost_lines=priced.lines,
            price_version=priced.price_version,
            billed_nano=bill(priced.cost_nano, priced.lines, terms, event.model, None),
            plan_version=terms.name,
        )


def fact(event: UsageEvent) -> Fact:
    """What of it the truth is told: not what it is billed."""
    assert event.cost_nano is not None
    return Fact(event.id, event.user_id, event.cost_nano, event.started_at, event.completed_at, event.adjusts)
