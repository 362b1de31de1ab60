"""Errors of the books and their reports, each of which a test finds."""

from gateway.ledger import sql
from gateway.reports import usage_sql
from gateway.reports.store import UsageRow
from tests.ledger import test_credit as credit
from tests.planted.plant import Function, Text, Value, caught_by
from tests.reports import test_awkward as awkward_rows
from tests.reports import test_output as output
from tests.reports import test_usage as usage
from tests.reports.test_awkward import awkward
from tests.reports.test_usage import filled

__all__ = ["awkward", "filled"]

test_a_late_row_is_booked_when_it_was_completed = caught_by(
    output.test_a_sealed_month_does_not_move,
    "'cost_usd': '59.000000000'",
    Text(
        sql,
        "INSERT_BATCH",
        "case when b.completed_at >= bound.sealed then b.completed_at else greatest(bound.at, bound.sealed) end",
        "b.completed_at",
    ),
)

test_what_credit_has_paid_is_in_the_window_too = caught_by(
    credit.test_what_credit_pays_is_not_at_stripe_as_well,
    "== (0, 0)",
    Function("book_usage", "u.at, 0, u.part from unnest", "u.at, 0, 0 from unnest"),
)

test_days_begin_an_hour_early = caught_by(
    usage.test_every_grouping_and_range_equals_the_ledger,
    "('week',)",
    Text(usage_sql, "BY_DAY", "timezone('UTC', day", "timezone('Etc/GMT-1', day"),
)

test_hours_begin_an_hour_late = caught_by(
    awkward_rows.test_every_grouping_of_awkward_rows_equals_the_ledger,
    "('hour',)",
    Text(usage_sql, "BY_HOUR", "date_bin('1 hour', p.at,", "date_bin('1 hour', p.at + interval '1 hour',"),
)

test_a_group_beyond_the_limit_is_left_out = caught_by(
    awkward_rows.test_a_group_too_many_refuses_the_report_and_none_is_left_out,
    "At index 0 diff",
    Text(usage_sql, "BY_DAY", "limit $4", "limit $4 - 2"),
)

test_what_has_no_price_is_0 = caught_by(
    output.test_what_has_no_price_is_never_shown_as_0,
    "'0.000000000'",
    Value(UsageRow, "is_unpriced", False),
)
