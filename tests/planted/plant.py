"""Bugs that are planted for the time of one test, to show that this test fails because of them.

`caught_by` makes a test of another one: it plants the bugs, runs that test, and passes only where it fails with the
words that are expected. That it passes without them is shown where it stands.

    test_a_late_row_moves_a_closed_month = caught_by(
        test_output.test_a_sealed_month_does_not_move, "59.000000000", Text(sql, "INSERT_BATCH", "right", "wrong")
    )
"""

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

from gateway.stores.postgres import Pool

Check = Callable[..., Awaitable[None]]


class Text(NamedTuple):
    """A part of a text, such as a query, is another: `where` holds it as `name`."""

    where: Any
    name: str
    right: str
    wrong: str


class Value(NamedTuple):
    """A function or a constant is another."""

    where: Any
    name: str
    wrong: Any


class Function(NamedTuple):
    """A part of a function in the test's database is another."""

    name: str
    right: str
    wrong: str


class Statement(NamedTuple):
    """A change of the test's database."""

    sql: str


Bug = Text | Value | Function | Statement


def caught_by(check: Check, because: str, *bugs: Bug) -> Check:
    """A test that passes where `check` fails with these words while the bugs are there.

    `because` is what pytest says of the two values, such as "At index 0 diff: 1 != 2". A bug of the database needs a
    check that is given `pool` or `ledger`.
    """

    @functools.wraps(check)
    async def caught(**given: Any) -> None:
        with ExitStack() as planted:
            for bug in bugs:
                match bug:
                    case Text(where, name, right, wrong):
                        planted.enter_context(patch.object(where, name, _changed(getattr(where, name), right, wrong)))
                    case Value(where, name, wrong):
                        planted.enter_context(patch.object(where, name, wrong))
                    case Function(name, right, wrong):
                        await _change_function(_pool(given), name, right, wrong)
                    case Statement(sql):
                        await _pool(given).execute(sql)
            with pytest.raises(AssertionError, match=re.escape(because)):
                await check(**given)

    return caught


def _pool(given: Mapping[str, Any]) -> Pool:
    found: Pool = given["pool"] if "pool" in given else given["ledger"].pool
    return found


async def _change_function(pool: Pool, name: str, right: str, wrong: str) -> None:
    body = await pool.fetchval("select pg_get_functiondef($1::regproc)", f"public.{name}")
    await pool.execute(_changed(body, right, wrong))


def _changed(text: str, right: str, wrong: str) -> str:
    assert right in text, f"there is no {right!r} to plant a bug in"
    return text.replace(right, wrong)
