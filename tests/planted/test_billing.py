"""Errors of billing, each of which a test finds."""

from datetime import UTC, datetime
from typing import Any

from gateway.audit.reads import sums
from gateway.billing import bridge_store, filing, freezing, new_event
from gateway.billing.bridge import EVENT_LINES
from gateway.billing.new_event import insert_event
from gateway.billing.windows import identifier
from gateway.ledger import sql
from tests.billing import test_held as held
from tests.billing import test_late as late
from tests.billing import test_outbox_freeze as freeze
from tests.billing import test_outbox_history as history
from tests.billing import test_outbox_send as send
from tests.ledger import test_credit as credit
from tests.planted.plant import Function, Statement, Text, Value, caught_by

_TODAYS_CUSTOMER = """
select c.stripe_customer_id from user_customers then_paid
join user_customers pays on pays.user_id = then_paid.user_id and pays.valid_to is null
join customers c on c.id = pays.customer_id where then_paid.customer_id = $1
"""


async def _insert_for_todays_customer(connection: Any, event: Any, *filed: Any) -> Any:
    customer = await connection.fetchval(_TODAYS_CUSTOMER, event.customer_id)
    return await insert_event(connection, event._replace(customer=customer), *filed)


test_the_customer_is_read_at_the_freeze = caught_by(
    freeze.test_a_change_of_customer_never_moves_an_amount,
    "At index 0 diff: ('cus_2', 7) != ('cus_1', 3075)",
    Value(freezing, "insert_event", _insert_for_todays_customer),
)

test_the_customer_is_read_when_a_row_is_written = caught_by(
    freeze.test_a_change_of_customer_never_moves_an_amount,
    "At index 1 diff: ('cus_2', 7) != ('cus_1', 600000)",
    Text(
        sql,
        "INSERT_BATCH",
        "p.valid_from <= b.completed_at\n    and (p.valid_to is null or p.valid_to > b.completed_at)",
        "p.valid_to is null",
    ),
)

test_the_end_of_an_invoice_is_ignored = caught_by(
    late.test_usage_of_a_finished_month_goes_to_the_present_one,
    "datetime.datetime(2026, 10, 31, 22, 59, 59",
    Value(filing, "_before", lambda *_: datetime.max.replace(tzinfo=UTC)),
)

# A constraint of the outbox would refuse it, so that is taken away too.
test_an_identifier_is_used_again = caught_by(
    send.test_a_person_sends_a_rejected_event_again_under_a_new_identifier,
    ":0' == ",
    Statement("alter table stripe_meter_events drop constraint stripe_meter_events_identifier_key"),
    Value(new_event, "identifier", lambda meter, customer, window, _: identifier(meter, customer, window, 0)),
)

test_an_attempt_is_not_written_down = caught_by(
    history.test_every_attempt_stays,
    "Right contains 3 more items, first extra item: (1, 'in_doubt', None, None, '500: oops')",
    Statement(
        "create trigger planted before insert on stripe_attempts for each row execute function public.skip_row()"
    ),
)

test_both_parts_of_a_row_that_credit_pays_in_part_are_rounded = caught_by(
    credit.test_an_amount_is_split_where_credit_ends,
    ", 700, 1000) != ",
    Function("book_usage", "parts := parts || part;", "parts := parts || (round(part, -3))::bigint;"),
)

test_what_was_refused_is_delivered_in_the_bridge = caught_by(
    held.test_what_was_refused_is_no_delivery_and_stays_a_breach_however_old,
    "{'rejected': '0.000000000'} != {'rejected': '-3.600000000'}",
    Value(bridge_store, "EVENT_LINES", {**EVENT_LINES, "rejected": "delivered"}),
)

test_what_was_refused_is_delivered_in_the_audit = caught_by(
    held.test_what_was_refused_is_no_delivery_and_stays_a_breach_however_old,
    "assert '20.913366000' == '17.313366000'",
    Text(sums, "BILLING", "state in ('sent', 'duplicate')", "state in ('sent', 'duplicate', 'rejected')"),
)
