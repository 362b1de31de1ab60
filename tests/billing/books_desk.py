"""Those who look after the books of the model: they decide what waits, write credit notes, and take events back.

They use the product's commands, and look at Stripe where these do not know. What they have ended by hand they tell
the truth, which knows it from nobody else.
"""

import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Final

from gateway.billing import cancelling, held
from gateway.billing.decisions import Action
from gateway.billing.held import Judged, WantedDecision
from gateway.config.settings import Settings
from gateway.kit.errors import OptionError
from gateway.stores.postgres import Pool
from tests.billing.books_stripe import StripeSide
from tests.billing.books_truth import NANO_PER_UNIT, Truth

CANCELLED_WITHIN: Final = timedelta(hours=23)
_WHY: Final = "looked at Stripe"
_DELIVERED: Final = """
select identifier from stripe_meter_events where state in ('sent', 'duplicate') and delivered_at > $1
order by id desc limit 1
"""


class Desk:
    """One for a run."""

    def __init__(
        self, dice: random.Random, pool: Pool, settings: Settings, stripe: StripeSide, truth: Truth, done: Counter[str]
    ) -> None:
        self._random: Final = dice
        self._pool: Final = pool
        self._settings: Final = settings
        self._stripe: Final = stripe
        self._truth: Final = truth
        self._done: Final = done

    async def decide(self, now: datetime) -> None:
        """What waits was found at Stripe, or is sent again. Its summaries are asked first, so what does not fit is
        refused; of that, one is sometimes settled or written off."""
        await self._decide(WantedDecision("delivered", _WHY), now)
        refused = await self._decide(WantedDecision("reissue", _WHY), now)
        if refused and self._random.random() < 0.3:
            await self._end_by_hand(self._random.choice(refused), now)
        if self._random.random() < 0.3:
            await self.settle_credit(now)

    async def end_all(self, now: datetime) -> None:
        """What still waits is ended by hand."""
        for judged in await self._decide(WantedDecision("delivered", _WHY), now):
            await self._end_by_hand(judged, now)

    async def settle_credit(self, now: datetime) -> None:
        """Credit notes for what corrections owe to customers and no period could take back."""
        _, due = await held.list_held(self._settings)
        for each in due:
            done = await cancelling.settle_credit(
                self._settings, each.customer, "cn_1", "corrected", now=now, is_sure=True, by="finance"
            )
            self._truth.by_hand[each.customer] -= sum(one.micro_usd for one in done) * NANO_PER_UNIT
            self._done["credit note"] += 1

    async def cancel(self, now: datetime) -> None:
        """A delivered event is taken back; its window is billed anew."""
        found = await self._pool.fetchval(_DELIVERED, now - CANCELLED_WITHIN)
        if found is None:
            return
        try:
            await cancelling.cancel_event(self._settings, found, "wrong", now=now, is_sure=True)
        except OptionError:
            return  # on a final invoice
        self._done["cancelled"] += 1

    async def _decide(self, wanted: WantedDecision, now: datetime) -> list[Judged]:
        """Those with which it was not done."""
        try:
            judged = await held.decide(self._settings, wanted, now=now, is_sure=True, by="finance")
        except OptionError:
            return []  # nothing waits
        for each in judged:
            self._done[f"{wanted.action} {'done' if each.is_done else 'refused'}"] += 1
        return [each for each in judged if not each.is_done]

    async def _end_by_hand(self, judged: Judged, now: datetime) -> None:
        """Somebody looks at Stripe's own list, and says what has become of an event."""
        event = judged.event
        is_there = any(each.identifier == event.identifier for each in self._stripe.counted())
        action: Action = "delivered" if is_there else self._random.choice(("settle", "write-off"))
        wanted = WantedDecision(action, "looked at Stripe's list", "in_1", event.identifier, is_forced=is_there)
        if not await self._decide(wanted, now) and not is_there:
            self._truth.by_hand[event.customer] += event.value * NANO_PER_UNIT
