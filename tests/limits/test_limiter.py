"""What a limit does while Redis or PostgreSQL is away: hard closes, the rest opens (docs/limits.md)."""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from uuid import uuid4

import pytest

import pricing
import pricing.data
from gateway.config.settings import LimitSettings
from gateway.kit.errors import ApiError, DependencyDown
from gateway.limits import limiter as limiter_module
from gateway.limits.budgets import Budget
from gateway.limits.claims import Claim, KeyLimits, RateLimits, Taken
from gateway.limits.counters import KEPT, Limits
from gateway.limits.limiter import Limiter
from gateway.limits.spending import Spending
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from gateway.usage.plans import KnownPlans, PlanBook, PlanVersion
from gateway.usage.settle import UNSEEN, Settler
from tests.ledger.journals_at_work import opened
from tests.support.events import AT, call
from tests.support.patience import ENDS_S
from tests.support.plans import make_plan
from tests.support.servers import free_port

USD = 1_000_000_000
BOOK = pricing.parse(pricing.data.read_texts())
USER = "00000000-0000-7000-8000-00000000000a"


def key_limits(*, hard: bool | None = None, requests: int | None = None) -> KeyLimits:
    budgets: tuple[Budget, ...] = ()
    if hard is not None:
        budgets = (Budget(id="b", user_id=USER, limit_nano=5 * USD, period="day", hard=hard, since=AT),)
    return KeyLimits(RateLimits(requests=None if requests is None else (requests, 60.0)), RateLimits(), budgets)


@asynccontextmanager
async def limiter(redis_url: str, pool: Pool, *plans: PlanVersion, **settings: bool) -> AsyncIterator[Limiter]:
    async with open_redis(redis_url, timeout_s=1) as redis:
        known = KnownPlans(PlanBook(plans))
        settler = Settler(BOOK, markup=Decimal(1), bill_estimates=True, region=None, plans=known)
        made = Limiter(Limits(redis, hold_s=600), Spending(pool), settler, LimitSettings(**settings))
        yield made
        await made.close()


async def refused(of: Limiter, bounds: KeyLimits, **call: object) -> ApiError:
    with pytest.raises(ApiError) as raised:
        await of.take(opened(str(uuid4()), user_id=USER, **call), bounds, "key_1")
    return raised.value


async def test_redis_away(pool: Pool) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    async with limiter(nowhere, pool) as open_one, limiter(nowhere, pool, rates_need_redis=True) as closed:
        for bounds in (key_limits(requests=1), key_limits(hard=False)):
            assert await open_one.take(opened(str(uuid4()), user_id=USER), bounds, "key_1") == {}
        error = await refused(open_one, key_limits(hard=True))
        assert (error.status, error.code) == (503, "limits_unavailable")
        assert (await refused(closed, key_limits(requests=1))).status == 503


async def test_postgres_away_before_a_period_has_its_counter(redis_url: str, pool: Pool) -> None:
    await pool.close()
    async with limiter(redis_url, pool) as one:
        assert (await refused(one, key_limits(hard=True))).code == "limits_unavailable"
        headers = await one.take(opened(str(uuid4()), user_id=USER), key_limits(hard=False, requests=9), "key_1")
        assert headers["x-ratelimit-remaining-requests"] == "8"


async def test_a_model_without_a_price_cannot_be_held(redis_url: str, pool: Pool) -> None:
    async with limiter(redis_url, pool) as one:
        error = await refused(one, key_limits(hard=True), model="gpt-99")
        assert (error.status, error.code, error.param) == (403, "model_not_priced", "model")
        # A tier left to OpenAI is held at the dearest that it may take.
        cheap = await refused(one, _tight(1), output_cap=1000, service_tier="default")
        dear = await refused(one, _tight(1), output_cap=1000, service_tier="auto")
        assert cheap.code == dear.code == "insufficient_quota"
        assert _need(dear) > _need(cheap)
        # Without one the project's own default counts, and that may be the dear one.
        assert _need(await refused(one, _tight(1), output_cap=1000)) == _need(dear)


def _tight(nano: int) -> KeyLimits:
    budget = Budget(id="t", user_id=USER, limit_nano=nano, period="day", hard=True, since=AT)
    return KeyLimits(RateLimits(), RateLimits(), (budget,))


def _need(error: ApiError) -> Decimal:
    return Decimal(error.message.rpartition("cost up to ")[2].partition(". ")[0])


async def test_prepaid_credit_is_held_for_the_most_that_the_plan_may_bill(redis_url: str, pool: Pool) -> None:
    """A budget goes by cost, whatever the plan."""
    own = {"usd_per_unit": {"gpt-5-mini": {"output_tokens": "0.001"}}, "factor": "1"}
    plans = {
        "none": (),
        "triple": (make_plan("p", "3"),),
        "others": (make_plan("p", "3", user_id=str(uuid4())),),
        "own": (make_plan("p", kind="price_list", rates=own),),
    }
    needs = {"credit": dict[str, Decimal](), "budget": dict[str, Decimal]()}
    for name, made in plans.items():
        async with limiter(redis_url, pool, *made) as one:
            for kind, counts in (("credit", "billed_usd"), ("budget", "cost_usd")):
                bound = Budget(f"{kind}-{name}", USER, 1, "day", True, AT, counts=counts)  # type: ignore[arg-type]
                bounds = KeyLimits(RateLimits(), RateLimits(), (bound,))
                needs[kind][name] = _need(await refused(one, bounds, output_cap=1000, service_tier="default"))
    assert len(set(needs["budget"].values())) == 1
    credit = needs["credit"]
    assert credit["others"] == credit["none"] == needs["budget"]["none"]
    assert credit["triple"] == 3 * credit["none"]
    assert credit["own"] == credit["none"] + 1  # a thousand tokens at 0.001 USD


async def test_what_a_call_of_unknown_end_held_stays_held(redis_url: str, pool: Pool) -> None:
    """Until its row has come: the recount gives it back (`test_recount`)."""
    async with limiter(redis_url, pool) as one:
        call = opened(str(uuid4()), user_id=USER)
        await one.take(call, _tight(5 * USD), "key_1")
        one.abandon(call.id)
        await one.give_back(call.id, None)
        await one.close()
        (key,) = await one._limits.windows()  # what Redis holds for it
        assert set((await one._limits.state(key)).held) == {call.id}


async def test_a_claim_that_redis_carries_out_after_the_time_out_holds_nothing_for_long(
    redis_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis that stands still for two seconds does so with every call's claim in its socket."""
    async with limiter(redis_url, pool) as one:
        counters, reserve = one._limits, one._limits.reserve

        async def answer_too_late(event_id: str, claims: Sequence[Claim]) -> list[Taken]:
            await reserve(event_id, claims)
            raise DependencyDown("redis", "TimeoutError")

        monkeypatch.setattr(counters, "reserve", answer_too_late)
        assert (await refused(one, _tight(5 * USD))).code == "limits_unavailable"
        (key,) = await counters.windows()
        monkeypatch.setattr(limiter_module, "IN_DOUBT_S", 3600.0)
        await one.renew()
        assert len((await counters.state(key)).held) == 1  # it may still be on its way
        monkeypatch.setattr(limiter_module, "IN_DOUBT_S", 0.0)
        await one.renew()
        assert (await counters.state(key)).held == {}
        assert not one._in_doubt


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"evidence": "unpriced", "cost_nano": None, "billed_nano": None}, True),
        ({"evidence": "estimated", "cost_nano": 7, "billed_nano": 7, "metadata": {UNSEEN: True}}, True),
        ({"evidence": "estimated", "cost_nano": 7, "billed_nano": 7}, False),
        ({"cost_nano": 7, "billed_nano": 7}, False),
    ],
)
async def test_a_hard_budget_keeps_the_hold_of_a_call_whose_cost_is_not_known(
    redis_url: str, pool: Pool, changes: dict[str, object], kept: bool
) -> None:
    async with limiter(redis_url, pool) as one:
        sent = opened(str(uuid4()), user_id=USER)
        await one.take(sent, _tight(5 * USD), "key_1")
        (key,) = await one._limits.windows()
        (held,) = (await one._limits.state(key)).held.values()
        event = call(USER, sent.id, **changes)  # type: ignore[arg-type]
        await one.give_back(sent.id, event)
        await one.close()
        state = await one._limits.state(key)
        cost = event.cost_nano or 0
        assert state.held == ({f"{KEPT}{sent.id}": held - cost} if kept else {})
        # What is kept takes room from the next call, as long as nobody knows better.
        room = _tight(held + cost + 1)
        again = opened(str(uuid4()), user_id=USER)
        if kept:
            assert (await refused(one, room)).code == "insufficient_quota"
        else:
            assert await one.take(again, room, "key_1") is not None


async def test_files_and_sounds_are_held_by_their_bytes(redis_url: str, pool: Pool) -> None:
    async with limiter(redis_url, pool) as one:
        needs = [
            _need(await refused(one, _tight(1), output_cap=1, text_bytes=0, model="gpt-5", **media))
            for media in (
                {"media_parts": 1},
                {"media_parts": 1, "media_bytes": 100_000},
                {"media_parts": 1, "media_bytes": 9_000_000},
                {"media_parts": 1, "file_links": 1},
            )
        ]
        assert needs[0] < needs[1] < needs[2] == needs[3]  # no more than the model's context


async def test_a_look_that_fails_after_its_call_has_gone_is_no_error_of_the_loop(redis_url: str, pool: Pool) -> None:
    asked, fails, told = asyncio.Event(), asyncio.Event(), list[dict[str, object]]()

    async def read_spent(_: object) -> tuple[int, int, int]:
        asked.set()
        await fails.wait()
        raise DependencyDown("postgres", "away")

    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with limiter(redis_url, pool) as of:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(of._spending, "read_spent", read_spent)
            taking = asyncio.create_task(of.take(opened(str(uuid4()), user_id=USER), key_limits(hard=True), "key_1"))
            await asyncio.wait_for(asked.wait(), ENDS_S)
            taking.cancel()
            await asyncio.wait({taking})
            fails.set()
            while of._begun:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        gc.collect()
        assert told == []
