"""Errors of the books that the model of ninety days finds, in one month of it."""

from datetime import UTC, datetime

import pytest

from gateway.billing import filing, freezing_sql
from tests.billing import test_books_model as books
from tests.billing.test_books_model import database_url
from tests.planted.plant import Function, Text, Value, caught_by

__all__ = ["database_url"]
pytestmark = pytest.mark.long

_TODAYS_CUSTOMER = """coalesce((
  select today.stripe_customer_id from public.user_customers then_paid
  join public.user_customers pays on pays.user_id = then_paid.user_id and pays.valid_to is null
  join public.customers today on today.id = pays.customer_id
  where then_paid.customer_id = c.id order by then_paid.valid_from limit 1
), c.stripe_customer_id) as customer"""

test_the_customer_is_read_at_the_freeze = caught_by(
    books.test_a_month,
    " micro-USD, and Stripe counts ",
    Text(freezing_sql, "CARRY_LOCK", "c.stripe_customer_id as customer", _TODAYS_CUSTOMER),
)

test_the_end_of_an_invoice_is_ignored = caught_by(
    books.test_a_month,
    " micro-USD, and invoices ",
    Value(filing, "_before", lambda *_: datetime.max.replace(tzinfo=UTC)),
)

test_both_parts_of_a_row_that_credit_pays_in_part_are_rounded = caught_by(
    books.test_a_month,
    " micro-USD, and Stripe counts ",
    Function("book_usage", "parts := parts || part;", "parts := parts || (round(part, -3))::bigint;"),
)
