"""What Stripe reports later of events that it took with a 200: by the stand-in, and as its SDK's samples have it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import pytest

from gateway.billing.stripe import Billing
from gateway.billing.webhooks.inbox import StripeInbox
from gateway.billing.webhooks.notice_store import DeliveredEvent, DueRecheck, NoticeStore
from gateway.billing.webhooks.notices import read_report
from gateway.billing.webhooks.opening import build_stripe_events
from gateway.billing.webhooks.recheck import SUSPECTS_MAX, HourRecheck, judge
from gateway.stores.postgres import Pool
from gateway.stores.webhook_inbox import WebhookEvent
from tests.conftest import METER
from tests.support.stand_ins import control
from tests.support.stripe_samples import ERROR_REPORT, NO_METER, NOTIFICATION, with_request
from tests.support.stripe_shop import START, Shop

FIRST: Final = datetime.fromtimestamp(START, UTC)
PLANT: Final = """
insert into stripe_meter_events (user_id, customer, meter, window_start, window_seconds, seq, value, nano,
  carry_nano_after, event_timestamp, identifier, state, first_attempt_at, delivered_at, attempts)
select $1, $2, $3, $4::timestamptz, 3600, $5::int, $6::bigint, $6 * 1000, 0,
  $4 + interval '3599 seconds', $7, 'sent', $8, $8, 1 returning id
"""


async def send(shop: Shop, pool: Pool, customer: str, value: int, seq: int = 0) -> str:
    """An event of the hour before the first, delivered as far as anybody knows."""
    name = f"{METER}:{customer}:{START - 3600}:{seq}"
    await shop.use(customer, value, START - 1, name)
    user = await pool.fetchval("insert into users (email) values ($1) returning id", f"{uuid4().hex}@example.com")
    at = FIRST + timedelta(seconds=1)
    await pool.execute(PLANT, user, customer, METER, FIRST - timedelta(hours=1), seq, value, name, at)
    return name


async def report(shop: Shop, pool: Pool, billing: Billing) -> list[str]:
    """Stripe tells, and a worker hears. The notices' ids."""
    reported = (await control(shop.sandbox, "stripe", "/report"))["reported"]
    events = [
        WebhookEvent(one["id"], one["type"], None, json.dumps(NOTIFICATION | _head(one)).encode()) for one in reported
    ]
    await StripeInbox(pool).store(events)
    worker = build_stripe_events(billing, pool)
    while await worker.step_once():
        pass
    assert await pool.fetchval("select count(*) from webhook_inbox where processed_at is null") == 0
    return [one["id"] for one in reported]


def _head(event: dict[str, Any]) -> dict[str, Any]:
    return {name: event[name] for name in ("id", "type", "created", "related_object")}


async def states(pool: Pool) -> dict[str, str]:
    return {row["identifier"]: row["state"] for row in await pool.fetch("select * from stripe_meter_events")}


async def compare(pool: Pool, billing: Billing) -> list[str]:
    """All hours that have to be compared, whenever that would be due. Their verdicts."""
    await pool.execute("update stripe_rechecks set due_at = now() where checked_at is null")
    await pool.execute("update stripe_meter_events set delivered_at = delivered_at - interval '720 hours'")
    recheck = HourRecheck(NoticeStore(pool), billing)
    while await recheck.step_once():
        pass
    return [row["verdict"] for row in await pool.fetch("select verdict from stripe_rechecks order by customer")]


async def test_an_event_that_stripe_names_is_rejected(shop: Shop, pool: Pool, billing: Billing) -> None:
    known = (await shop.client.v1.customers.create_async({})).id
    good, lost = await send(shop, pool, known, 10), await send(shop, pool, "cus_nobody", 7)
    (notice,) = await report(shop, pool, billing)
    assert await states(pool) == {good: "sent", lost: "rejected"}
    row = await pool.fetchrow("select * from stripe_meter_events where identifier = $1", lost)
    assert row is not None
    assert "meter_event_customer_not_found" in row["last_error"]
    assert row["delivered_at"] is None
    (attempt,) = await pool.fetch("select * from stripe_attempts")
    assert (attempt["event_id"], attempt["outcome"], attempt["stripe_request_id"]) == (row["id"], "rejected", notice)
    told = await pool.fetchrow("select * from stripe_notices")
    assert told is not None
    assert (told["event_id"], told["meter"], told["errors"], told["matched"]) == (notice, METER, 1, 1)
    # Nothing else can be meant, so nothing is compared.
    assert await pool.fetchval("select count(*) from stripe_rechecks") == 0
    # Told again, under its own id or by another worker: it has been done.
    store = NoticeStore(pool)
    again = read_report(json.loads(told["detail"]) | {"id": notice, "type": told["event_type"]}, told["occurred_at"])
    assert await store.keep(again, METER) == []
    assert await pool.fetchval("select count(*) from stripe_attempts") == 1


async def test_what_the_samples_leave_out_is_found_in_the_summaries(shop: Shop, pool: Pool, billing: Billing) -> None:
    """Seven events are lost, and Stripe names five of them."""
    known = (await shop.client.v1.customers.create_async({})).id
    good = [await send(shop, pool, known, value, seq) for seq, value in enumerate((10, 20))]
    lost = [await send(shop, pool, f"cus_nobody_{number}", 100 + number) for number in range(7)]
    await report(shop, pool, billing)
    now = await states(pool)
    assert sorted(now[name] for name in lost) == ["rejected"] * 5 + ["sent"] * 2
    assert await pool.fetchval("select count(*) from stripe_rechecks where checked_at is null") == 3
    # Not at once: the summaries lag behind.
    assert await NoticeStore(pool).next_recheck() is None
    assert sorted(await compare(pool, billing)) == ["agrees", "rejected", "rejected"]
    now = await states(pool)
    assert {now[name] for name in lost} == {"rejected"}
    assert {now[name] for name in good} == {"sent"}
    by_comparison = await pool.fetch("select * from stripe_rechecks where verdict = 'rejected'")
    assert [(row["counted"], row["delivered"] >= 100) for row in by_comparison] == [(0, True)] * 2


@pytest.mark.parametrize(
    "moving",
    [
        "delivered_at = now() - interval '14 minutes'",
        "state = 'pending', delivered_at = null, first_attempt_at = now(), next_attempt_at = now()",
    ],
)
async def test_an_hour_in_which_something_was_just_sent_is_compared_later(
    shop: Shop, pool: Pool, billing: Billing, moving: str
) -> None:
    """Else what the summaries do not have yet would look like another event that is lost."""
    known = (await shop.client.v1.customers.create_async({})).id
    names = [await send(shop, pool, known, value, seq) for seq, value in enumerate((10, 20))]
    data = {"data": {"reason": {"error_count": 1, "error_types": []}}}
    about = {"id": "evt_x", "type": "t", "related_object": {"id": "mtr"}} | data
    await NoticeStore(pool).keep(read_report(about, FIRST + timedelta(seconds=12)), METER)
    await pool.execute("update stripe_rechecks set due_at = now()")
    await pool.execute(f"update stripe_meter_events set {moving} where identifier = $1", names[1])
    recheck = HourRecheck(NoticeStore(pool), billing)
    assert await recheck.step_once() is True
    assert await recheck.step_once() is False
    row = await pool.fetchrow("select checked_at, due_at > now() + interval '4 minutes' as later from stripe_rechecks")
    assert tuple(row or ()) == (None, True)
    later = "update stripe_meter_events set state = 'sent', delivered_at = now() where identifier = $1"
    await pool.execute(later, names[1])
    assert await compare(pool, billing) == ["agrees"]


async def test_what_no_sum_explains_is_for_a_person(shop: Shop, pool: Pool, billing: Billing) -> None:
    known = (await shop.client.v1.customers.create_async({})).id
    names = [await send(shop, pool, known, 10, seq) for seq in range(2)]
    cancel: Any = {"event_name": METER, "type": "cancel", "cancel": {"identifier": names[0]}}
    await shop.client.v1.billing.meter_event_adjustments.create_async(cancel)  # one of the two is not counted
    await send(shop, pool, "cus_nobody", 5)
    data = {"data": {"reason": {"error_count": 3, "error_types": []}}}
    created = FIRST + timedelta(seconds=12)
    notice = read_report({"id": "evt_x", "type": "t", "related_object": {"id": "mtr"}} | data, created)
    await NoticeStore(pool).keep(notice, METER)
    assert sorted(await compare(pool, billing)) == ["rejected", "unknown"]
    now = await states(pool)
    assert [now[name] for name in names] == ["unknown", "unknown"]
    query = "select distinct last_error from stripe_meter_events where state = 'unknown'"
    error = await pool.fetchval(query)
    assert "Stripe has 10 of 20 micro-USD of this hour" in error


async def test_no_meter(shop: Shop, pool: Pool, billing: Billing) -> None:
    """The reporter looks at the meter before it sends, and stops; what Stripe took meanwhile waits for a person."""
    await control(shop.sandbox, "stripe", "/ways", no_meter_late=True)
    await shop.client.v1.billing.meters.deactivate_async(shop.price.recurring.meter)
    known = (await shop.client.v1.customers.create_async({})).id
    lost = await send(shop, pool, known, 10)
    await report(shop, pool, billing)
    assert await states(pool) == {lost: "rejected"}
    assert await billing.refusal(METER) is not None


async def test_an_alert_is_kept(shop: Shop, pool: Pool, billing: Billing) -> None:
    alert = {"id": "alrt_1", "title": "much", "usage_threshold": {"gte": 100, "meter": shop.price.recurring.meter}}
    about = {"object": "billing.alert_triggered", "alert": alert, "customer": "cus_1", "value": 120, "livemode": False}
    document = {
        "id": "evt_1", "object": "event", "type": "billing.alert.triggered", "created": START, "livemode": False,
        "data": {"object": about},
    }  # fmt: skip
    body = json.dumps(document).encode()
    await StripeInbox(pool).store([WebhookEvent("evt_1", "billing.alert.triggered", None, body)])
    worker = build_stripe_events(billing, pool)
    while await worker.step_once():
        pass
    row = await pool.fetchrow("select * from stripe_notices")
    assert row is not None
    assert (row["event_type"], row["meter"], row["errors"]) == ("billing.alert.triggered", METER, 0)
    assert json.loads(row["detail"]) == {
        "alert": "alrt_1", "title": "much", "customer": "cus_1", "value": 120, "threshold": 100,
    }  # fmt: skip


def test_samples_name_an_event_in_either_way() -> None:
    for event in (
        ERROR_REPORT,
        NO_METER,
        with_request({"idempotency_key": "key"}),
        with_request({"identifier": "key"}),
    ):
        notice = read_report(event, FIRST)
        assert notice.errors == 1
        (one,) = notice.samples
        assert one.identifier in ("key", "openai_usage_micro_usd:cus_sample:1795388400:0")
        assert "Stripe did not count it: " in one.reason
    assert read_report(ERROR_REPORT, FIRST).since == datetime(2026, 11, 23, tzinfo=UTC)
    assert read_report(NO_METER, FIRST).meter_id is None
    for odd in ({}, {"data": None}, {"data": {"reason": {"error_types": [7, {"sample_errors": [None, {}]}]}}}):
        assert read_report(odd, FIRST).samples == ()


def delivered(*values: int) -> list[DeliveredEvent]:
    return [DeliveredEvent(number, str(number), value) for number, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "suspects", "counted", "verdict", "about"),
    [
        ((5, 7), (0, 1), 12, "agrees", []),
        ((5, 7), (0, 1), 7, "rejected", [0]),
        ((5, 7), (0, 1), 0, "rejected", [0, 1]),
        ((5, 5), (0, 1), 5, "unknown", [0, 1]),  # which one?
        ((5, 7), (0, 1), 3, "unknown", [0, 1]),
        ((5, 7), (1,), 7, "unknown", [1]),
        ((5, 7), (), 7, "agrees", []),
        ((5, 7), (0, 1), 100, "agrees", []),
        ((5, -7), (0, 1), 5, "rejected", [1]),  # what lowers the bill was lost
        ((1, 2, 3), (0, 1, 2), 3, "unknown", [0, 1, 2]),  # 3, or 1 and 2
        ((1,) * (SUSPECTS_MAX + 1), tuple(range(SUSPECTS_MAX + 1)), SUSPECTS_MAX, "unknown", list(range(13))),
    ],
)
def test_which_events_were_not_counted(
    values: tuple[int, ...], suspects: tuple[int, ...], counted: int, verdict: str, about: list[int]
) -> None:
    due = DueRecheck(1, "evt", METER, "cus", FIRST, list(suspects))
    found, meant = judge(delivered(*values), due, counted)
    assert (found, [one.id for one in meant]) == (verdict, about)
