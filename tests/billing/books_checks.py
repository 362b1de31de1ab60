"""What must be true of the books once a run has healed: product, Stripe and truth say the same, to the nano-USD."""

from collections import Counter
from typing import Any, Final

from gateway.audit.marks import Mark
from gateway.audit.reads.marks import measure, read_since
from gateway.audit.reads.payers import PAYERS
from gateway.audit.reads.snapshot import snapshot
from gateway.audit.reads.sums import COUNTED_OPEN
from gateway.audit.stores import AuditOptions, audit_stores
from gateway.billing.status import PayerBridge, read_status
from gateway.billing.unbilled import read_unbilled
from tests.billing.books_model import World
from tests.billing.books_truth import NANO_PER_UNIT, Truth

_EVENTS: Final = """
select customer, identifier, state, value, event_timestamp from stripe_meter_events
"""
DELIVERED: Final = ("sent", "duplicate")
ENDED: Final = {*DELIVERED, "superseded", "cancelled", "settled", "written_off"}
"""States in which no event waits for anybody."""


async def find_wrong(world: World) -> list[str]:
    """Whatever is not as it must be; empty when the books are right."""
    events = await world.pool.fetch(_EVENTS)
    return [
        *await _wrong_customers(world),
        *await _wrong_users(world),
        *_wrong_events(world, events),
        *await find_unbalanced(world),
        *await _wrong_bridge(world),
        *await _breaches(world),
    ]


async def _wrong_customers(world: World) -> list[str]:
    """The equation: what is on Stripe's invoices, and what was ended by hand or is carried, is what is owed."""
    wrong = []
    counted: Counter[str] = Counter()
    for (customer, _), value in world.stripe.by_hour().items():
        counted[customer] += value
    for customer in world.customers:
        must = world.truth.at_stripe(customer)
        invoiced = await world.stripe.invoiced(customer)
        if counted[customer] != must:
            wrong.append(f"{customer} owes {must} micro-USD, and Stripe counts {counted[customer]}")
        if invoiced != counted[customer]:
            wrong.append(f"{customer}: Stripe counts {counted[customer]} micro-USD, and invoices {invoiced}")
    return wrong


async def _wrong_users(world: World) -> list[str]:
    """What nobody pays for, as `gateway billing unbilled` lists it, and the credit that is left."""
    listed = {each.user_id: each.nano for each in await read_unbilled(world.pool, world.now)}
    must = {user: nano for user, nano in ((user, world.truth.unbilled(user)) for user in world.users) if nano}
    wrong = [
        f"{user}: {must.get(user, 0)} nano-USD unbilled, listed are {listed.get(user, 0)}"
        for user in sorted({*listed, *must})
        if must.get(user, 0) != listed.get(user, 0)
    ]
    for row in await world.pool.fetch("select user_id::text, used_nano, left_nano from credit_balances"):
        user = row["user_id"]
        used, granted = world.truth.used[user], world.truth.granted[user]
        if (row["used_nano"], row["left_nano"]) != (used, granted - used):
            wrong.append(f"{user}: {used} of {granted} nano-USD credit used; it says {dict(row)}")
    return wrong


def _wrong_events(world: World, events: list[Any]) -> list[str]:
    """Each event that Stripe counts is one that we have sent and that counts, once; and hour by hour it is the same."""
    wrong = []
    states = {row["identifier"]: row["state"] for row in events}
    counted = Counter(event.identifier for event in world.stripe.counted())
    wrong += [f"{name} is counted {times} times" for name, times in counted.items() if times > 1]
    wrong += [f"{name} is counted, and {states.get(name)}" for name in counted if states.get(name) not in DELIVERED]
    wrong += [
        f"{name} is {state}, and not counted"
        for name, state in states.items()
        if state in DELIVERED and name not in counted
    ]
    wrong += [f"{name} is {state}, and waits" for name, state in states.items() if state not in ENDED]
    ours: Counter[tuple[str, int]] = Counter()
    for row in events:
        if row["state"] in DELIVERED:
            ours[row["customer"], int(row["event_timestamp"].timestamp()) // 3600 * 3600] += row["value"]
    theirs = world.stripe.by_hour()
    wrong += [
        f"{customer}, hour {hour}: {ours[customer, hour]} micro-USD delivered, Stripe has {theirs[customer, hour]}"
        for customer, hour in sorted({*ours, *theirs})
        if ours[customer, hour] != theirs[customer, hour]
    ]
    return wrong


async def find_unbalanced(world: World) -> list[str]:
    """Whether at this moment, with whatever waits or is held, every amount is in one place: `gateway billing status`
    explains all, and says of each payer what the truth says."""
    status = await read_status(world.settings, None, by_customer=True)
    wrong = [] if status.is_explained else [f"the bridge does not explain all: {status.total.to_json()['parts']}"]
    names = {str(row["id"]): row["name"] for row in await world.pool.fetch(_CUSTOMERS)}
    for payer in status.payers:
        payer_id = str(payer.payer_id)
        name, must = names.get(payer_id, payer_id), _lines_of(world.truth, names.get(payer_id), payer_id)
        wrong += _other_lines(name, payer, must)
    return wrong + await _wrong_since_marks(world)


async def _wrong_since_marks(world: World) -> list[str]:
    """An audit that goes on from what was kept at any look before finds nothing that one of everything does not."""
    wrong = []
    async with snapshot(world.pool) as view:
        for mark in world.marks:
            since = await read_since(view, mark)
            if since.sums != since.counters:
                wrong.append(f"since {mark.until}, kept at {mark.as_of}: {since.sums}, counted {since.counters}")
            if (payers := await view.offenders(PAYERS, mark.until)).found:
                wrong.append(f"since {mark.until}: payers {payers.examples}")
        if (states := await view.offenders(COUNTED_OPEN)).found:
            wrong.append(f"states of the outbox: {states.examples}")
        if (measured := await measure(view)) is not None:
            if measured.sums != measured.counters:
                wrong.append(f"of all time: {measured.sums}, counted {measured.counters}")
            world.done["marks"] += 1
            world.marks.append(Mark(measured.until, world.now, "", measured.kept, None))
    return wrong


_CUSTOMERS: Final = "select id, stripe_customer_id as name from customers"


def _lines_of(truth: Truth, customer: str | None, user: str) -> dict[str, int]:
    """Of a customer, or of what a user has used while nobody paid."""
    if customer is None:
        return {
            "billed": truth.alone[user],
            "accrued": -truth.given[user],
            "credit": -truth.alone_credit[user],
            "unbilled": -truth.unbilled(user),
            "at_stripe": 0,
        }
    return {
        "billed": truth.billed[customer],
        "accrued": truth.taken_over[customer],
        "credit": -truth.credit[customer],
        "unbilled": 0,
    }


def _other_lines(name: str, payer: PayerBridge, must: dict[str, int]) -> list[str]:
    found = {key: payer.bridge.line(key) for key in must}
    return [
        f"{name}: {key} is {found[key]} in the bridge, and must be {must[key]}"
        for key in must
        if found[key] != must[key]
    ]


async def _wrong_bridge(world: World) -> list[str]:
    """And once all has healed, nothing waits."""
    status = await read_status(world.settings, None, by_customer=True)
    names = {str(row["id"]): row["name"] for row in await world.pool.fetch(_CUSTOMERS)}
    wrong = []
    for payer in status.payers:
        customer = names.get(str(payer.payer_id))
        if customer is not None:
            must = dict.fromkeys(_WAITING, 0)
            must["at_stripe"] = world.truth.at_stripe(customer) * NANO_PER_UNIT
            must["carried"] = -world.truth.carried(customer)
            wrong += _other_lines(customer, payer, must)
    return wrong


_WAITING: Final = ("open", "sending", "credit_due", "rejected", "unknown", "unreportable")


async def _breaches(world: World) -> list[str]:
    """`gateway audit --all`."""
    report = await audit_stores(world.settings, now=world.now, wanted=AuditOptions(everything=True))
    return [
        f"{each.name} {each.title}: {each.wrong} {each.examples}" for each in report.verdicts if each.state == "breach"
    ]
