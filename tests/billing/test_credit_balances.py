"""Credit at Stripe bounds calls as credit here does: read by a worker, less what no invoice has drawn on yet.

Stripe is the stand-in under its clock; of the balance stripe-python says the form.
"""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
import pytest

from gateway.access.identities import KeyOwners
from gateway.accounts.store import Accounts
from gateway.billing.mirror.balances import BalanceStore, CreditBalances, read_balance
from gateway.billing.mirror.read import StripeReader
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.kit.errors import ApiError, DependencyDown
from gateway.ledger.store import Ledger
from gateway.limits.budgets import Budget
from gateway.limits.claims import KeyLimits, RateLimits
from gateway.limits.counters import Limits
from gateway.limits.recount import QUIET_PASSES, Recount
from gateway.limits.spending import Spending
from gateway.sandbox import credentials
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from tests.conftest import METER
from tests.ledger.journals_at_work import opened
from tests.limits.test_limiter import limiter
from tests.support.invoke import gateway
from tests.support.stand_ins import control
from tests.support.stripe_shop import HOUR, JANUARY, START, Shop, open_shop
from tests.support.usage import entries, usage

USD = 1_000_000_000
CUSTOMER = "cus_g"


def instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class Grants(NamedTuple):
    """A customer of mode `grants` with two users, and Stripe."""

    shop: Shop
    billing: Billing
    ledger: Ledger
    users: list[str]

    @property
    def pool(self) -> Any:
        return self.ledger.pool

    async def grant(self, cents: int, currency: str = "usd") -> None:
        """The operator grants credit, at Stripe."""
        amount = {"type": "monetary", "monetary": {"currency": currency, "value": cents}}
        scope = {"scope": {"price_type": "metered"}}
        given: Any = {"customer": CUSTOMER, "amount": amount, "applicability_config": scope, "category": "paid"}
        await self.shop.client.v1.billing.credit_grants.create_async(given)

    async def read(self) -> int:
        """A worker reads what is due, and all of it is."""
        await self.pool.execute("update stripe_credit_balances set due_at = now()")
        reader = StripeReader(self.billing)
        return await CreditBalances(reader, BalanceStore(self.pool), meter=METER, every_s=60).step_once()

    async def use(self, nano: int, at: int, user: int = 0) -> None:
        await self.ledger.insert_batch(entries(usage(self.users[user], instant(at), nano)))

    async def bill(self, at: int) -> None:
        """A worker freezes and sends what is due at an instant."""
        await self.shop.move_to(at)
        outbox = Outbox(self.pool)
        reporter = UsageReporter(
            outbox, self.billing, grace_s=0, monotonic=lambda: 0.0, random=lambda: 0.5, log=_Silent()
        )
        await reporter.step_once(instant(at))

    async def bounds(self, user: int = 0) -> list[Budget]:
        """What bounds a user's calls, as a proxy reads it."""
        owner = await KeyOwners(self.pool).identity(self.users[user], f"key_{uuid4()}")
        assert owner is not None
        return msgspec.json.decode(owner.budgets, type=list[Budget])

    async def left(self) -> int:
        """Nano-USD that calls may still use."""
        (budget,) = await self.bounds()
        spent, _, _ = await Spending(self.pool).read_spent(budget.window(datetime.now(UTC)))
        return budget.limit_nano - spent


class _Silent:
    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
async def grants(ledger: Ledger, pool: Pool) -> AsyncIterator[Grants]:
    async with open_shop() as shop:
        await control(shop.sandbox, "stripe", "/customers", id=CUSTOMER)
        await shop.subscribe(CUSTOMER)
        billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=shop.sandbox.stripe_base_url)
        users = [
            await Accounts(pool).create_user(f"{name}@example.com", stripe_customer_id=CUSTOMER) for name in ("a", "b")
        ]
        await pool.execute("update customers set mode = 'grants'")
        await pool.execute("update books set meter = $1", METER)
        yield Grants(shop, billing, ledger, users)
        await billing.close()


async def test_what_is_left_is_the_balance_less_what_no_invoice_has(grants: Grants) -> None:
    """Wherever the amount is: in a window, carried, on its way, at Stripe; and an invoice that draws on it changes
    nothing."""
    assert await grants.bounds() == []  # before it is read, nothing is bounded
    await grants.grant(1_000)
    assert (await grants.read(), await grants.left()) == (1, 10 * USD)
    await grants.use(3 * USD + 5, START + HOUR)
    await grants.use(USD, START + HOUR, user=1)
    assert await grants.left() == 6 * USD - 5
    await grants.bill(START + 3 * HOUR)
    assert await grants.left() == 6 * USD - 5
    await grants.read()
    assert await grants.left() == 6 * USD - 5
    await grants.shop.move_to(JANUARY)  # the invoice is a draft
    await grants.read()
    assert await grants.left() == 6 * USD - 5
    await grants.use(USD, JANUARY + 60)
    before = await grants.left()
    await grants.shop.move_to(JANUARY + 2 * HOUR)  # and final: Stripe has drawn 4 USD
    assert await grants.left() == before == 5 * USD - 5
    await grants.read()
    assert await grants.left() == 5 * USD - 5
    assert await grants.pool.fetchval("select available from stripe_credit_balances") == 600
    await grants.grant(200)
    await grants.read()
    assert await grants.left() == 7 * USD - 5


async def test_all_users_of_a_customer_have_one_counter_that_begins_with_each_invoice(grants: Grants) -> None:
    await grants.grant(1_000)
    await grants.use(USD, START + HOUR)
    await grants.bill(START + 3 * HOUR)
    await grants.read()
    names = [[each.window(datetime.now(UTC)).name for each in await grants.bounds(user)] for user in (0, 1)]
    assert names[0] == names[1]
    await grants.shop.move_to(JANUARY + 2 * HOUR)
    await grants.read()
    (later,) = await grants.bounds()
    assert [later.window(datetime.now(UTC)).name] != names[0]
    assert later.since == instant(JANUARY)


async def test_a_call_that_the_credit_does_not_cover_is_refused(grants: Grants, redis_url: str) -> None:
    await grants.grant(1)
    await grants.read()
    (budget,) = await grants.bounds()
    bounds = KeyLimits(RateLimits(), RateLimits(), (budget,))
    async with limiter(redis_url, grants.pool) as one:
        call = opened(str(uuid4()), user_id=grants.users[0], output_cap=100, service_tier="default")
        await one.take(call, bounds, "key_1")
        dear = opened(str(uuid4()), user_id=grants.users[0], output_cap=100_000, service_tier="default")
        with pytest.raises(ApiError) as refused:
            await one.take(dear, bounds, "key_1")
    assert (refused.value.status, refused.value.code) == (429, "insufficient_quota")
    assert "the customer's credit of 0.010000000 USD" in refused.value.message


async def test_the_counter_of_an_invoice_that_is_final_is_given_up(grants: Grants, redis_url: str) -> None:
    """It has no end of its own, and each invoice would leave one behind."""
    await grants.grant(1_000)
    await grants.read()
    (budget,) = await grants.bounds()
    async with limiter(redis_url, grants.pool) as one, open_redis(redis_url, timeout_s=5) as redis:
        limits = Limits(redis, hold_s=600)
        recount = Recount(limits, Spending(grants.pool), now=lambda: datetime.now(UTC))
        call = opened(str(uuid4()), user_id=grants.users[0], output_cap=100, service_tier="default")
        await one.take(call, KeyLimits(RateLimits(), RateLimits(), (budget,)), "key_1")
        await one.give_back(call.id, None)
        await one.close()
        for _ in range(QUIET_PASSES):
            await recount.step_once()
        assert len(await limits.windows()) == 1
        await grants.use(USD, START + HOUR)
        await grants.bill(START + 3 * HOUR)
        await grants.shop.move_to(JANUARY + 2 * HOUR)
        await grants.read()
        for _ in range(QUIET_PASSES):
            await recount.step_once()
        assert await limits.windows() == {}


async def test_only_where_the_operator_has_set_the_mode(grants: Grants) -> None:
    await grants.grant(1_000)
    await grants.read()
    assert [each.grants_of is not None for each in await grants.bounds()] == [True]
    await grants.pool.execute("update customers set mode = 'postpaid'")
    assert await grants.bounds() == []
    assert await grants.read() == 0


async def test_used_up_credit_of_ours_does_not_stop_whoever_is_invoiced(grants: Grants) -> None:
    """It pays nothing then, so it bounds nothing."""
    pool = grants.pool
    await pool.execute("update customers set mode = 'prepaid'")
    await pool.execute("insert into credit_entries (user_id, amount_usd) values ($1, 1)", grants.users[0])
    assert [each.prepaid for each in await grants.bounds()] == [True]
    await pool.execute("update customers set mode = 'postpaid'")
    assert await grants.bounds() == []
    await pool.execute("update users set stripe_customer_id = null")
    assert [each.prepaid for each in await grants.bounds()] == [True]


async def test_credit_in_another_currency_counts_for_nothing(grants: Grants) -> None:
    await grants.grant(500, "eur")
    await grants.grant(100)
    await grants.read()
    assert await grants.left() == USD


async def test_a_balance_is_read_once_in_its_time_by_whichever_worker(grants: Grants) -> None:
    reader = StripeReader(grants.billing)
    workers = [CreditBalances(reader, BalanceStore(grants.pool), meter=METER, every_s=60) for _ in range(3)]
    assert sum([await each.step_once() for each in workers]) == 1
    await grants.pool.execute("update stripe_credit_balances set due_at = now()")
    assert sum([await each.step_once() for each in workers]) == 1


async def test_without_stripe_the_last_balance_stays_and_doctor_says_how_old_it_is(
    grants: Grants, database_url: str
) -> None:
    await grants.grant(1_000)
    await grants.read()
    await control(grants.shop.sandbox, "stripe", "", path="credit_balance_summary", status=503, times=9)
    assert (await grants.read(), await grants.left()) == (0, 10 * USD)
    assert await BalanceStore(grants.pool).older_than(datetime.now(UTC) - timedelta(minutes=5)) == []
    await grants.pool.execute("update stripe_credit_balances set asked_at = asked_at - interval '1 hour'")
    env = {
        "DATABASE_URL": database_url,
        "STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY,
        "STRIPE_BASE_URL": grants.shop.sandbox.stripe_base_url,
    }
    found = json.loads((await gateway(env, "doctor", "--json")).out)
    assert any(one["says"].startswith(f"credit at Stripe was not read for 15 minutes: {CUSTOMER}") for one in found)


async def test_a_balance_between_two_invoices_is_not_kept(grants: Grants) -> None:
    """What was read before an invoice became final does not go with what was invoiced after it."""
    answers = iter([instant(START), instant(JANUARY), instant(JANUARY)])
    cents = iter([1_000, 600])

    class Moving(StripeReader):
        async def invoiced_until(self, customer_id: str, meter: str) -> datetime | None:
            return next(answers)

        async def credit_left(self, customer_id: str) -> int:
            return next(cents)

    assert await read_balance(Moving(grants.billing), CUSTOMER, METER) == (600, instant(JANUARY))
    answers = iter([instant(START + each) for each in range(9)])
    cents = iter(range(9))
    with pytest.raises(DependencyDown):
        await read_balance(Moving(grants.billing), CUSTOMER, METER)
