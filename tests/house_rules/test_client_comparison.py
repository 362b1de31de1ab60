"""The comparison that `python -m tests.clients` makes must notice every way in which a row can differ."""

from decimal import Decimal
from typing import Any

import pytest

from tests.clients.install import Mismatch, version_of
from tests.clients.ledger import check_charged, check_told

ROWS: Any = [
    {"id": "a", "prompt_tokens": 5, "completion_tokens": 7, "evidence": "reported", "cost_usd": Decimal("0.1")},
    {"id": "b", "prompt_tokens": 2, "completion_tokens": None, "evidence": "reported", "cost_usd": Decimal("0.1")},
]
CHARGED: Any = [
    {"usage": {"input_tokens": 5, "output_tokens": 7}, "client_request_id": "a"},
    {"usage": {"prompt_tokens": 2}, "client_request_id": "b"},
]
CHARGED = [{"number": 1, "endpoint": "responses", "model": "m", "status": 200} | call for call in CHARGED]
FIRST: Any = {"call": "one", "prompt_tokens": 5, "completion_tokens": 7, "event_id": "a"}
SECOND: Any = {"call": "two", "prompt_tokens": 2, "completion_tokens": None}
BOTH: Any = {"call": "both", "prompt_tokens": 7, "completion_tokens": 7, "calls": 2}
SHOWN_NONE: Any = {"call": "stream", "prompt_tokens": None, "completion_tokens": None}


@pytest.mark.parametrize("told", [[FIRST, SECOND], [BOTH], [FIRST, SHOWN_NONE]])
def test_rows_that_are_as_the_client_was_shown(told: Any) -> None:
    check_charged(CHARGED, ROWS)
    check_told(told, ROWS)


@pytest.mark.parametrize(
    "told",
    [
        [SECOND, FIRST],
        [FIRST],
        [FIRST, SECOND, SECOND],
        [FIRST, SHOWN_NONE, SHOWN_NONE],
        [FIRST | {"completion_tokens": 8}, SECOND],
        [FIRST | {"event_id": "b"}, SECOND],
        [BOTH | {"calls": 0}, FIRST, SECOND],
        [BOTH | {"prompt_tokens": 8}],
    ],
)
def test_what_the_client_was_shown_differs(told: Any) -> None:
    with pytest.raises(Mismatch):
        check_told(told, ROWS)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "c"},
        {"prompt_tokens": 6},
        {"completion_tokens": None},
        {"evidence": "drained"},
        {"cost_usd": None},
        {"cost_usd": Decimal(0)},
    ],
)
def test_a_row_differs_from_what_was_charged(change: Any) -> None:
    with pytest.raises(Mismatch):
        check_charged(CHARGED, [ROWS[0] | change, ROWS[1]])


def test_a_row_too_many_or_too_few_or_a_failed_call() -> None:
    for charged, rows in (
        (CHARGED, ROWS[:1]),
        (CHARGED[:1], ROWS),
        (CHARGED, [*ROWS, ROWS[0]]),
        ([CHARGED[0] | {"status": 500}, CHARGED[1]], ROWS),
        ([CHARGED[0] | {"usage": None}, CHARGED[1]], ROWS),
    ):
        with pytest.raises(Mismatch):
            check_charged(charged, rows)


def test_versions_of_node_compare_as_numbers() -> None:
    assert version_of("v9.11.2\n") < version_of("v22.13.0\n") == (22, 13)
    with pytest.raises(Mismatch):
        version_of("none")
