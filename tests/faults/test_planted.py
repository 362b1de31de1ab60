"""Tests of the tests: a gateway with a bug planted in it is found out by the checks, and by `gateway audit` where an
audit can know. The same kills without the bug are in test_failpoints.py, and are clean there.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

import pytest

from tests.chaos.payers import make_payer
from tests.chaos.planted import BUGS
from tests.faults.scene import QUICK, scene
from tests.support.gateway import Stack, stack

WITHIN_S: Final = 5.0
"""Seconds in which a right gateway would have healed several times over."""
CALLS_MAX: Final = 200
STREAMS: Final = 3


class Caught(NamedTuple):
    """How a bug is provoked, and by whom it is noticed."""

    failpoint: str | None
    """Where a process is killed; None: a proxy in the middle of streams."""
    by: str
    """The list of the verdict that must name something."""
    invariants: frozenset[str]
    """Of `gateway audit`, those that must be breached."""


CAUGHT: Final = {
    "ack before insert": Caught("flush.read:2", "lost", frozenset({"INV-1"})),
    # No audit of our own books can miss a call that nobody ever wrote down; OpenAI's figures can.
    "no journal": Caught(None, "lost", frozenset()),
    "counters from the batch": Caught("flush.committed:2", "sums", frozenset({"INV-5"})),
    # An audit asks Stripe about hours that are over only, because its summaries lag: tests/audit/test_run.py.
    "blind Stripe resend": Caught("bill.sent:1", "sums", frozenset()),
}


@pytest.fixture
def ground(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Stack]:
    """A ground of this test's own: the bug spoils it."""
    with stack(tmp_path, database_url, redis_url, FLUSH__STREAM=f"usage-{uuid4().hex}", **QUICK) as made:
        made.prepare()
        yield made


def test_every_bug_has_its_test() -> None:
    assert CAUGHT.keys() == BUGS.keys()


@pytest.mark.parametrize("bug", BUGS)
async def test_it_is_caught(ground: Stack, bug: str) -> None:
    how = CAUGHT[bug]
    await make_payer(ground, ground.env["DATABASE_URL"], ground.user_id)
    with scene(ground, failpoint=how.failpoint, planted=bug) as playing:
        if how.failpoint is None:
            await playing.left_in_the_middle(STREAMS)
            calls = STREAMS
        else:
            calls = (await playing.call_until_killed(calls_max=CALLS_MAX))[200]
        found = await playing.verdict(calls, WITHIN_S)
        audited = await asyncio.to_thread(ground.command, "audit", "--all", "--grace", "0", "--stripe", "--json")
    assert getattr(found, how.by), found
    report = json.loads(audited.stdout)
    breached = {one["name"] for one in report["invariants"] if one["state"] == "breach"}
    assert how.invariants <= breached, report
    assert audited.returncode == bool(breached)
