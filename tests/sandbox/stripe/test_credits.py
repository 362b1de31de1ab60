"""Credit grants, invoice items, credit notes and balances of the Stripe stand-in, judged by Stripe's own SDK."""

from decimal import Decimal
from typing import Any

import pytest
import stripe

from tests.support.stand_ins import control
from tests.support.stripe_shop import DAY, HOUR, JANUARY, START, Shop


async def grant(shop: Shop, customer: str, cents: int, **fields: Any) -> Any:
    wanted: Any = {
        "customer": customer,
        "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": cents}},
        "applicability_config": {"scope": {"price_type": "metered"}},
        **fields,
    }
    return await shop.client.v1.billing.credit_grants.create_async(wanted)


async def left(shop: Shop, customer: str, credit_grant: str | None = None) -> int:
    """What the balance summary shows."""
    by: Any = {"type": "applicability_scope", "applicability_scope": {"price_type": "metered"}}
    by = by if credit_grant is None else {"type": "credit_grant", "credit_grant": credit_grant}
    query: Any = {"customer": customer, "filter": by}
    summary = await shop.client.v1.billing.credit_balance_summary.retrieve_async(query)
    return sum(one.available_balance.monetary.value for one in summary.balances if one.available_balance.monetary)


async def movements(shop: Shop, customer: str) -> list[str]:
    query: Any = {"customer": customer}
    page = await shop.client.v1.billing.credit_balance_transactions.list_async(query)
    return [(one.credit or one.debit).type async for one in page.auto_paging_iter()]  # type: ignore[union-attr]


async def test_credit_is_used_up_when_an_invoice_is_finalised(shop: Shop) -> None:
    subscription = await shop.subscribe()
    who = subscription.customer
    later = await grant(shop, who, 500)
    first = await grant(shop, who, 200, priority=0)
    free = await grant(shop, who, 100, category="promotional")
    await shop.use(who, 4_000_000, START)
    await shop.move_to(JANUARY)
    (draft,) = await shop.invoices()
    assert (draft.total, await left(shop, who)) == (400, 800)  # not before
    await shop.move_to(JANUARY + HOUR)
    (paid,) = await shop.invoices()
    assert (paid.status, paid.subtotal, paid.total, paid.amount_paid) == ("paid", 400, 0, 0)
    (line,) = paid.lines.data
    assert [one.amount for one in line.pretax_credit_amounts or []] == [200, 100, 100]
    assert [one.amount for one in paid.total_pretax_credit_amounts or []] == [200, 100, 100]
    assert [await left(shop, who, one.id) for one in (first, free, later)] == [0, 0, 400]
    assert await movements(shop, who) == ["credits_applied"] * 3 + ["credits_granted"] * 3


async def test_credit_is_for_metered_prices_only(shop: Shop) -> None:
    subscription = await shop.subscribe()
    await grant(shop, subscription.customer, 500)
    item: Any = {"customer": subscription.customer, "amount": 300, "currency": "usd", "description": "set-up"}
    await shop.client.v1.invoice_items.create_async(item)
    await shop.use(subscription.customer, 1_000_000, START)
    await shop.move_to(JANUARY + HOUR)
    (paid,) = await shop.invoices()
    assert (paid.subtotal, paid.total, await left(shop, subscription.customer)) == (400, 300, 400)


async def test_credit_of_other_prices_is_not_used(shop: Shop) -> None:
    subscription = await shop.subscribe()
    wanted: Any = {
        "currency": "usd",
        "product": shop.price.product,
        "unit_amount": 1,
        "recurring": {"interval": "month", "usage_type": "metered", "meter": shop.price.recurring.meter},
    }
    other = await shop.client.v1.prices.create_async(wanted)
    scopes = [{"scope": {"prices": [{"id": price}]}} for price in (other.id, shop.price.id)]
    unused, used = [await grant(shop, subscription.customer, 50, applicability_config=scope) for scope in scopes]
    await shop.use(subscription.customer, 1_000_000, START)
    await shop.move_to(JANUARY + HOUR)
    assert [one.total for one in await shop.invoices()] == [50]
    assert [await left(shop, subscription.customer, one.id) for one in (unused, used)] == [50, 0]


async def test_grants_end(shop: Shop) -> None:
    who = (await shop.client.v1.customers.create_async({})).id
    grants = shop.client.v1.billing.credit_grants
    voided, expired = [await grant(shop, who, 100) for _ in range(2)]
    lapses = await grant(shop, who, 100, expires_at=START + DAY)
    early = await grant(shop, who, 100, effective_at=START + 2 * DAY)
    assert (await grants.void_grant_async(voided.id)).voided_at == START
    assert (await grants.expire_async(expired.id)).expires_at == START
    assert await left(shop, who) == 100
    await shop.move_to(START + DAY)
    assert await left(shop, who) == 0
    await shop.move_to(START + 2 * DAY)
    assert (await left(shop, who), await left(shop, who, early.id)) == (100, 100)
    with pytest.raises(stripe.InvalidRequestError, match="ended already"):
        await grants.void_grant_async(lapses.id)
    assert sorted(await movements(shop, who)) == [
        "credits_expired", "credits_expired", *["credits_granted"] * 4, "credits_voided",
    ]  # fmt: skip
    listed: Any = {"customer": who, "limit": 2}
    page = await grants.list_async(listed)
    assert [one.id async for one in page.auto_paging_iter()] == [early.id, lapses.id, expired.id, voided.id]


async def test_a_voided_invoice_gives_back_credit_and_balance(shop: Shop) -> None:
    await control(shop.sandbox, "stripe", "/settings", payments="fail")
    subscription = await shop.subscribe()
    who = subscription.customer
    await grant(shop, who, 100)
    credit: Any = {"amount": -50, "currency": "usd", "description": "sorry"}
    await shop.client.v1.customers.balance_transactions.create_async(who, credit)
    await shop.use(who, 4_000_000, START)
    await shop.move_to(JANUARY + HOUR)
    (invoice,) = await shop.invoices()
    assert (invoice.status, invoice.amount_due, invoice.starting_balance, invoice.ending_balance) == (
        "open", 250, -50, 0,
    )  # fmt: skip
    await shop.client.v1.invoices.void_invoice_async(invoice.id)
    assert await left(shop, who) == 100
    assert (await shop.client.v1.customers.retrieve_async(who)).balance == -50
    moved = (await shop.client.v1.customers.balance_transactions.list_async(who)).data
    assert [(one.type, one.amount, one.ending_balance) for one in moved] == [
        ("unapplied_from_invoice", -50, -50), ("applied_to_invoice", 50, 0), ("adjustment", -50, -50),
    ]  # fmt: skip
    found = await shop.client.v1.customers.balance_transactions.retrieve_async(who, moved[0].id)
    assert found.invoice == invoice.id


async def test_invoice_items_by_hand(shop: Shop) -> None:
    who = (await shop.client.v1.customers.create_async({})).id
    items = shop.client.v1.invoice_items
    flat: Any = {"customer": who, "amount": -100, "currency": "usd", "description": "correction"}
    await items.create_async(flat)
    price: Any = {"currency": "usd", "product": shop.price.product, "unit_amount_decimal": "12.5"}
    hourly = await shop.client.v1.prices.create_async(price)
    counted: Any = {"customer": who, "pricing": {"price": hourly.id}, "quantity_decimal": "2.2"}
    second = await items.create_async(counted)
    assert (second.amount, second.quantity, second.quantity_decimal) == (28, 2, Decimal("2.2"))
    settle: Any = {"customer": who, "pending_invoice_items_behavior": "include", "auto_advance": False}
    draft = await shop.client.v1.invoices.create_async(settle)
    assert (draft.status, draft.billing_reason, draft.total) == ("draft", "manual", -72)
    added: Any = {"customer": who, "invoice": draft.id, "amount": 500, "currency": "usd"}
    third = await items.create_async(added)
    assert (await shop.client.v1.invoices.retrieve_async(draft.id)).total == 428
    assert (await items.delete_async(third.id)).deleted
    done = await shop.client.v1.invoices.finalize_invoice_async(draft.id)
    assert (done.status, done.total, done.amount_due, done.ending_balance) == ("paid", -72, 0, -72)
    assert (await shop.client.v1.customers.retrieve_async(who)).balance == -72
    with pytest.raises(stripe.InvalidRequestError, match="already finalized"):
        await items.delete_async(second.id)
    assert (await items.retrieve_async(second.id)).invoice == draft.id
    recurring: Any = {"customer": who, "pricing": {"price": shop.price.id}}
    with pytest.raises(stripe.InvalidRequestError, match="type=one_time"):
        await items.create_async(recurring)


async def owing(shop: Shop, cents: int) -> Any:
    """An open invoice."""
    subscription = await shop.subscribe(collection_method="send_invoice", days_until_due=1)
    await shop.use(subscription.customer, cents * 10_000, START)
    await shop.move_to(JANUARY + HOUR)
    return (await shop.invoices(customer=subscription.customer))[0]


async def test_a_credit_note_lowers_what_is_to_be_paid(shop: Shop) -> None:
    invoice = await owing(shop, 400)
    notes = shop.client.v1.credit_notes
    wanted: Any = {"invoice": invoice.id, "amount": 150, "reason": "order_change", "memo": "counted twice"}
    note = await notes.create_async(wanted)
    assert (note.type, note.pre_payment_amount, note.post_payment_amount, note.status) == (
        "pre_payment", 150, 0, "issued",
    )  # fmt: skip
    lowered = await shop.client.v1.invoices.retrieve_async(invoice.id)
    assert (lowered.amount_remaining, lowered.pre_payment_credit_notes_amount, lowered.total) == (250, 150, 400)
    with pytest.raises(stripe.InvalidRequestError, match="no more than the invoice's remaining total"):
        await notes.create_async(wanted | {"amount": 251})
    assert (await notes.void_credit_note_async(note.id)).status == "void"
    assert (await shop.client.v1.invoices.retrieve_async(invoice.id)).amount_remaining == 400
    whole: Any = {
        "invoice": invoice.id,
        "lines": [{"type": "invoice_line_item", "invoice_line_item": invoice.lines.data[0].id}],
    }
    await notes.create_async(whole)
    assert (await shop.client.v1.invoices.retrieve_async(invoice.id)).status == "paid"
    assert [one.amount for one in (await notes.list_async({"invoice": invoice.id})).data] == [400, 150]


async def test_a_credit_note_of_a_paid_invoice_goes_to_the_balance(shop: Shop) -> None:
    invoice = await owing(shop, 400)
    await shop.client.v1.invoices.pay_async(invoice.id)
    notes = shop.client.v1.credit_notes
    wanted: Any = {"invoice": invoice.id, "amount": 150}
    with pytest.raises(stripe.InvalidRequestError, match=r"must equal the post-payment amount \(150\)"):
        await notes.create_async(wanted)
    note = await notes.create_async(wanted | {"credit_amount": 100, "out_of_band_amount": 50})
    assert (note.type, note.out_of_band_amount) == ("post_payment", 50)
    assert (await notes.retrieve_async(note.id)).customer_balance_transaction is not None
    assert (await shop.client.v1.customers.retrieve_async(invoice.customer)).balance == -100
    paid = await shop.client.v1.invoices.retrieve_async(invoice.id)
    assert (paid.post_payment_credit_notes_amount, paid.status) == (150, "paid")
