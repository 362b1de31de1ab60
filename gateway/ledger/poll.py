"""Poll: asks OpenAI again about calls that ended as an estimate. What it says later becomes an adjustment row.

Only a stored response can be asked for. Must not settle anything anew: the estimate stays, the difference is added.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from gateway.kit.errors import DependencyDown
from gateway.ledger.correct import correct_estimates
from gateway.ledger.open_items import Item, OpenItems
from gateway.ledger.store import Ledger
from gateway.openai.upstream import Upstream
from gateway.usage.adjust import EXACT
from gateway.usage.event import OpenRecord, UsageEvent
from gateway.usage.plan_store import PlanStore
from gateway.usage.settle import Settler
from pricing.readers.body import UNFINISHED, Said, read_body, read_status

ITEMS_MAX: Final = 50
ENLISTED_MAX: Final = 1000
LOOK_AGAIN: Final = timedelta(hours=1)
"""After a worker's first look for estimates that nothing has listed. Beside it a worker of an older version may run,
which does not list those whose price lines it adds up; an update is over by then."""
FIRST_WAIT_S: Final = 600.0
POLLS_MAX: Final = 12
"""About a week and a half of asking."""


class Poll:
    """One poller; any number may run, on any host."""

    def __init__(
        self,
        items: OpenItems,
        ledger: Ledger,
        upstream: Upstream,
        settler: Settler,
        plans: PlanStore,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._items: Final = items
        self._ledger: Final = ledger
        self._upstream: Final = upstream
        self._settler: Final = settler
        self._plans: Final = plans
        self._now: Final = now
        self._looks_at = [now(), now() + LOOK_AGAIN]

    async def step_once(self) -> int:
        """Asks about what is due. Returns how many estimates became exact. Raises DependencyDown("postgres")."""
        is_due = bool(self._looks_at) and self._looks_at[0] <= self._now()
        if is_due and await self._items.enlist(rows_max=ENLISTED_MAX) < ENLISTED_MAX:
            del self._looks_at[0]
        corrected = 0
        for item in await self._items.claim(rows_max=ITEMS_MAX, first_wait_s=FIRST_WAIT_S):
            try:
                corrected += await self._ask(item)
            except DependencyDown as error:
                if error.what != "openai":
                    raise
                await self._put_off(item, error.detail)
        return corrected

    async def _ask(self, item: Item) -> bool:
        body = await self._upstream.stored_response(item.upstream_id)
        if body is None:
            await self._items.given_up(item, "OpenAI has not kept it")
            return False
        if read_status(body) in UNFINISHED:
            raise DependencyDown("openai", "the response is still running")
        said = read_body(body)
        exact = None if said.usage is None else await self._settle(item, said)
        if exact is None or exact.evidence not in EXACT:
            await self._items.given_up(item, "it says no usage" if exact is None else "what it says has no price")
            return False
        corrected = await correct_estimates(self._ledger, {item.id: exact}, self._now())
        await self._items.mark_settled(item)
        return bool(corrected)

    async def _settle(self, item: Item, said: Said) -> UsageEvent:
        """The exact event, billed by what the estimate was billed by."""
        found = await self._ledger.estimates([item.id])
        terms = await self._plans.terms(found[0].plan_version) if found else None
        return self._settler.settle_exact(_opened(item), said, self._now(), drained=True, terms=terms)

    async def _put_off(self, item: Item, detail: str) -> None:
        if item.polls >= POLLS_MAX:
            await self._items.given_up(item, f"asked {item.polls} times: {detail}")
        else:
            await self._items.mark_failed(item, detail)


def _opened(item: Item) -> OpenRecord:
    return OpenRecord(
        id=item.id,
        user_id=item.user_id,
        endpoint=item.endpoint,
        model=item.model,
        started_at=item.opened_at,
        api_key_id=item.api_key_id,
        meeting_id=item.meeting_id,
        service_tier=item.service_tier,
        cache_ttl=item.cache_ttl,
    )
