"""What must be true of the books once a run has healed: product, Stripe and truth say the same, to the nano-USD."""

from collections import Counter
from typing import Any, Final

from gateway.audit.stores import AuditOptions, audit_stores
from gateway.billing.status import PayerBridge, read_status
from gateway.billing.unbilled import read_unbilled
from tests.billing.books_model import World
from tests.billing.books_truth import NANO_PER_UNIT

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
    must = {user: nano for user, nano in world.truth.unbilled.items() if nano}
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


async def _wrong_bridge(world: World) -> list[str]:
    """`gateway billing status`: everything is explained, and the lines of each customer are the truth's."""
    status = await read_status(world.settings, None, by_customer=True)
    wrong = [] if status.is_explained else [f"the bridge does not explain all: {status.total.to_json()['parts']}"]
    names = {str(row["id"]): row["name"] for row in await world.pool.fetch(_CUSTOMERS)}
    for payer in status.payers:
        if payer.is_customer:
            wrong += _wrong_lines(world, names[str(payer.payer_id)], payer)
    return wrong


_CUSTOMERS: Final = "select id, stripe_customer_id as name from customers"


def _wrong_lines(world: World, customer: str, payer: PayerBridge) -> list[str]:
    truth = world.truth
    must = {
        "credit": -truth.credit[customer],
        "at_stripe": truth.at_stripe(customer) * NANO_PER_UNIT,
        "carried": -((truth.owed(customer) - truth.by_hand[customer]) % NANO_PER_UNIT),
        "open": 0,
        "unbilled": 0,
        "sending": 0,
        "credit_due": 0,
        "unexplained": 0,
    }
    return [
        f"{customer}: {key} is {payer.bridge.line(key)} in the bridge, and must be {nano}"
        for key, nano in must.items()
        if payer.bridge.line(key) != nano
    ]


async def _breaches(world: World) -> list[str]:
    """`gateway audit --all`."""
    report = await audit_stores(world.settings, now=world.now, wanted=AuditOptions(everything=True))
    return [
        f"{each.name} {each.title}: {each.wrong} {each.examples}" for each in report.verdicts if each.state == "breach"
    ]
